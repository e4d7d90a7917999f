// Of each picker's parts show the one that its list selects; without scripts all are shown.
for (const picker of document.querySelectorAll(".picker")) {
  const list = picker.querySelector("select");
  const parts = picker.querySelectorAll(":scope > .picked");
  const show = () => parts.forEach((part, i) => { part.hidden = i !== list.selectedIndex; });
  list.addEventListener("change", show);
  show();
}

// Shows the figures of /stats.json, every two seconds. All texts are set as text, never as HTML.
const whole = new Intl.NumberFormat("en");
const count = (value) => (value === null || value === undefined ? "–" : whole.format(Math.round(value)));
const percent = (value) => `${(100 * value).toFixed(1)} %`;
const seconds = (value) => (value === null || value === undefined ? "–" : value.toFixed(value < 1 ? 3 : 1));
const sum = (counts) => Object.values(counts).reduce((total, each) => total + each, 0);
const list = (counts) => Object.entries(counts).map(([name, each]) => `${name} ${count(each)}`).join(", ");

function show(id, text, note = "") {
  const place = document.getElementById(id);
  const small = document.createElement("small");
  small.textContent = note;
  place.replaceChildren(text, small);
}

function cell(text, left) {
  const made = document.createElement("td");
  made.textContent = text ?? "";
  if (left) made.className = "text";
  return made;
}

function row(of) {
  const made = document.createElement("tr");
  const time = new Date(1000 * of.time).toLocaleTimeString("en-GB");
  made.append(
    cell(time, true), cell(of.arm, true), cell(of.outcome, true), cell(of.status), cell(of.source, true),
    cell(count(of.asked)), cell(count(of.limit)), cell(count(of.used)), cell(seconds(of.first_byte)),
    cell(seconds(of.seconds)), cell(of.reason, true),
  );
  return made;
}

function draw(stats) {
  const { saved, compared, first_byte: first } = stats;
  show("requests", count(sum(stats.arms)), list(stats.arms));
  if (saved.share === null) {
    show("saved", "–", "not known before two answers in each group");
  } else {
    show("saved", percent(saved.share), `[${percent(saved.low)}, ${percent(saved.high)}], ${count(stats.saved_tokens)} tokens`);
  }
  show("tokens", `${count(stats.asked)} / ${count(stats.used)}`, `estimator: ${count(stats.estimator_tokens)}`);
  show("means", `${count(compared.budget.mean)} / ${count(compared.control.mean)}`,
    `${count(compared.budget.count)} under a budget, ${count(compared.control.count)} control`);
  show("latency", first.median === undefined ? "–" : `${seconds(first.median)} s`,
    first.p99 === undefined ? "" : `99th percentile ${seconds(first.p99)} s`);
  show("outcomes", count(stats.outcomes.done ?? 0), list(stats.outcomes));
  document.getElementById("last").replaceChildren(...stats.last.map(row));
}

async function update() {
  const lost = document.getElementById("lost");
  try {
    const reply = await fetch("stats.json");
    if (!reply.ok) throw new Error(String(reply.status));
    draw(await reply.json());
    lost.hidden = true;
  } catch {
    lost.hidden = false;
  }
}

update();
setInterval(update, 2000);

"""The stories. `new=True` marks those kept for the split "test_new"."""

from tale.data.problems.story import Ask, story
from tale.data.problems.story import Number as N

SHE = (
    "Amara/Anna/Aisha/Beatriz/Bella/Carmen/Chloe/Clara/Daisy/Dana/Elena/Ella/Emma/Fatima/Fiona/"
    "Freya/Grace/Greta/Hana/Hannah/Ines/Iris/Isla/Jade/Jasmine/Julia/Kayla/Keiko/Lara/Layla/Leah/"
    "Lena/Lily/Lucia/Maria/Maya/Mei/Mila/Mina/Nadia/Naomi/Nina/Nora/Olivia/Paula/Petra/Priya/"
    "Rachel/Rosa/Ruth/Sara/Selma/Sofia/Stella/Tara/Tessa/Uma/Vera/Wanda/Willa/Yara/Yuki/Zara/Zoe"
)
HE = (
    "Adam/Ahmed/Alex/Amir/Andre/Arthur/Ben/Boris/Bruno/Caleb/Carlos/Chen/Daniel/David/Diego/"
    "Dmitri/Eli/Emil/Ethan/Felix/Finn/Frank/George/Gus/Hassan/Henry/Hugo/Ian/Ivan/Jack/Jamal/"
    "James/Jorge/Juan/Kai/Karim/Kevin/Kofi/Leo/Liam/Louis/Luca/Marco/Mark/Martin/Mateo/Max/"
    "Miguel/Nate/Nikolai/Noah/Oliver/Omar/Oscar/Pablo/Paul/Peter/Ravi/Ryan/Sam/Sean/Simon/Tariq/"
    "Theo/Tom/Victor/Walter/Will/Yusuf/Zack"
)
PLACE = "Oakville/Riverton/Lakeside/Milford/Ashton/Brookfield/Clifton/Denford/Eastbury/Fairview/Glenwood/Hillsboro"
DAY = "Monday/Tuesday/Wednesday/Thursday/Friday/Saturday/Sunday"

STORIES = (
    story(
        "school supplies",
        "{n} buys {boxes} boxes of {item}s for the new school year.",
        "Each box holds {each} {item}s and costs ${price}.",
        "{He} already has {old} {item}s in a drawer at home.",
        "The shop gives a {off}% discount on school bags this week.",
        "{n}'s class has {pupils} children.",
        numbers={
            "boxes": N("2-12", "the number of boxes {n} buys", "How many boxes of {item}s does {n} buy?"),
            "each": N("4-12", "the number of {item}s in each box", "How many {item}s does each box hold?"),
            "price": N("$1.25-6.75/0.25", "the price of one box", "How much does one box of {item}s cost?"),
            "old": N("13-40", "the number of {item}s at home", "How many {item}s does {n} already have at home?"),
            "off": N("15-45/5%", "the discount on school bags", "What percent discount is there on school bags?"),
            "pupils": N("21-33", "the number of children in {n}'s class", "How many children are in {n}'s class?"),
        },
        asks=(
            Ask(
                "How many {item}s does {n} buy? | How many {item}s are in the boxes altogether?",
                "the number of {item}s in the boxes = boxes * each",
            ),
            Ask(
                "How many {item}s does {n} have in total after buying the boxes?",
                "the number of new {item}s = boxes * each",
                "the total number of {item}s = @ + old",
            ),
        ),
        item="pencil/pen/marker/crayon/eraser/notebook",
    ),
    story(
        "bake sale",
        "{n} bakes {trays} trays of {item}s for the fair in {place}.",
        "There are {each} {item}s on every tray.",
        "Before lunch {he} sells {sold} {item}s for ${price} each.",
        "The oven has to be at {heat} degrees.",
        "{His} neighbor {m} brings {jars} jars of jam to the same table.",
        numbers={
            "trays": N("3-9", "the number of trays", "How many trays of {item}s does {n} bake?"),
            "each": N("6-12", "the number of {item}s on every tray", "How many {item}s are on each tray?"),
            "sold": N(
                "5-15", "the number of {item}s sold before lunch", "How many {item}s does {n} sell before lunch?"
            ),
            "price": N("$0.25-2.75/0.25", "the price of one {item}", "How much does one {item} cost?"),
            "heat": N("160-220/5 degrees", "the heat of the oven", "How many degrees does the oven need to be?"),
            "jars": N("13-28", "the number of jars of jam", "How many jars of jam does {m} bring?"),
        },
        asks=(
            Ask(
                "How many {item}s does {n} bake in total? | What is the total number of {item}s that {n} bakes?",
                "the number of {item}s baked = trays * each",
            ),
            Ask(
                "How many {item}s are left after lunch?",
                "the number of {item}s baked = trays * each",
                "the number of {item}s left = @ - sold",
            ),
        ),
        item="cookie/muffin/scone/cupcake/brownie/pretzel",
        place=PLACE,
    ),
    story(
        "road trip",
        "{n} drives for {hours} hours from {place} to the coast to visit {m}.",
        "{He} covers {speed} miles in every hour.",
        "The car starts with {tank} gallons of fuel and uses {used} gallons on the way.",
        "On the road {he} pays a toll of ${toll}.",
        "{He} also stops once for {rest} minutes to eat a sandwich.",
        numbers={
            "hours": N("2-9", "the number of hours {n} drives", "For how many hours does {n} drive?"),
            "speed": N("30-70/10", "the number of miles in every hour", "How many miles does {n} cover in an hour?"),
            "tank": N("14-22 gallons", "the fuel at the start", "How many gallons of fuel does the car start with?"),
            "used": N("3-11 gallons", "the fuel used on the way", "How many gallons of fuel does the car use?"),
            "toll": N("$1.25-8.75/0.5", "the toll", "How much does {n} pay for the toll?"),
            "rest": N("15-45/5 minutes", "the length of the stop", "How many minutes does {n} stop to eat?"),
        },
        asks=(
            Ask(
                "How many miles does {n} drive? | How far does {n} drive in miles?",
                "the number of miles {n} drives = hours * speed",
            ),
            Ask(
                "How many gallons of fuel are left at the end of the drive? | How much fuel is left when {n} arrives?",
                "the fuel left = tank - used",
            ),
        ),
        place=PLACE,
    ),
    story(
        "marble jar",
        "{n} has {own} {item}s in a jar, and {his} friend {m} has {other} {item}s.",
        "On {day} {n} gives {given} {item}s to {m}.",
        "Later {n} finds {found} more {item}s under the bed.",
        "A new bag of {item}s costs ${price} in the toy shop.",
        "They have been friends since kindergarten.",
        numbers={
            "own": N("40-69", "the number of {item}s {n} has at first", "How many {item}s does {n} have in the jar?"),
            "other": N("13-38", "the number of {item}s {m} has at first", "How many {item}s does {m} have at first?"),
            "given": N("3-12", "the number of {item}s given away", "How many {item}s does {n} give to {m}?"),
            "found": N("2-12", "the number of {item}s found", "How many {item}s does {n} find under the bed?"),
            "price": N("$2.25-7.75/0.25", "the price of a new bag", "How much does a new bag of {item}s cost?"),
        },
        asks=(
            Ask(
                "How many {item}s did {n} and {m} have together at first?",
                "the number of {item}s at first together = own + other",
            ),
            Ask(
                "How many more {item}s than {m} did {n} have at first?",
                "the number of extra {item}s {n} had = own - other",
            ),
            Ask(
                "How many {item}s does {n} have right after giving some to {m}?",
                "the number of {item}s {n} has after giving = own - given",
            ),
            Ask("How many {item}s does {m} have after {day}?", "the number of {item}s {m} has then = other + given"),
            Ask(
                "How many {item}s does {n} have in the end? | How many {item}s does {n} have now?",
                "the number of {item}s after giving = own - given",
                "the number of {item}s in the end = @ + found",
            ),
        ),
        item="marble/shell/button/sticker/coin/bead",
        day=DAY,
    ),
    story(
        "hens and goats",
        "{n} keeps {hens} hens and {goats} {animal}s on a small farm near {place}.",
        "Every hen lays {eggs} eggs a week.",
        "The family eats {eaten} eggs a week.",
        "At the market {he} sells a dozen eggs for ${price}.",
        "The barn is {length} feet long and was built by {m}.",
        numbers={
            "hens": N("5-12", "the number of hens", "How many hens does {n} keep?"),
            "goats": N("13-30", "the number of {animal}s", "How many {animal}s does {n} keep?"),
            "eggs": N("3-7", "the number of eggs each hen lays", "How many eggs does each hen lay in a week?"),
            "eaten": N("6-14", "the number of eggs the family eats", "How many eggs does the family eat in a week?"),
            "price": N("$2.25-5.75/0.25", "the price of a dozen eggs", "How much does a dozen eggs cost?"),
            "length": N("40-95/5 feet", "the length of the barn", "How many feet long is the barn?"),
        },
        asks=(
            Ask("How many hens and {animal}s does {n} keep altogether?", "the number of animals = hens + goats"),
            Ask(
                "How many eggs do the hens lay in a week? | What is the total number of eggs laid in a week?",
                "the number of eggs in a week = hens * eggs",
            ),
            Ask("How many more {animal}s than hens are on the farm?", "the number of extra {animal}s = goats - hens"),
            Ask(
                "How many eggs are left for the market each week?",
                "the number of eggs in a week = hens * eggs",
                "the number of eggs left = @ - eaten",
            ),
        ),
        animal="goat/cow/duck/rabbit/pig",
        place=PLACE,
    ),
    story(
        "reading a book",
        "{n} is reading a book of {pages} pages about {topic}.",
        "{He} has read {read} pages so far.",
        "From now on {he} reads {daily} pages every evening.",
        "{n} bought the book for ${price}, and it has {pictures} pictures.",
        "{His} friend {m} finished the same book last month.",
        numbers={
            "pages": N("55-98", "the number of pages in the book", "How many pages does the book have?"),
            "read": N("18-44", "the number of pages read so far", "How many pages has {n} read so far?"),
            "daily": N("4-12", "the number of pages every evening", "How many pages does {n} read every evening?"),
            "price": N("$5.25-14.75/0.5", "the price of the book", "How much did {n} pay for the book?"),
            "pictures": N("13-35", "the number of pictures", "How many pictures are in the book?"),
        },
        asks=(
            Ask(
                "How many pages are left to read? | How many pages does {n} still have to read?",
                "the number of pages left = pages - read",
            ),
            Ask(
                "How many evenings will {n} need to finish the book?",
                "the number of pages left = pages - read",
                "the number of evenings = @ / daily",
            ),
        ),
        topic="whales/castles/volcanoes/planets/dragons/pirates/trains/bees",
    ),
    story(
        "vegetable rows",
        "{n} plants {rows} rows of {plant} in the garden behind the house.",
        "Each row has {each} plants.",
        "In May the rabbits eat {eaten} of the plants.",
        "A bag of soil weighs {soil} kilograms and costs ${price}.",
        "{m} from next door waters the garden for {mins} minutes a day.",
        numbers={
            "rows": N("3-12", "the number of rows", "How many rows of {plant} does {n} plant?"),
            "each": N("6-12", "the number of plants in each row", "How many plants are in each row?"),
            "eaten": N("4-15", "the number of plants eaten", "How many plants do the rabbits eat?"),
            "soil": N("2.5-9.5/1 kilograms", "the weight of a bag of soil", "How many kilograms is a bag of soil?"),
            "price": N("$3.25-9.75/0.5", "the price of a bag of soil", "How much does a bag of soil cost?"),
            "mins": N(
                "15-50/5 minutes", "the time {m} waters a day", "How many minutes a day does {m} water the garden?"
            ),
        },
        asks=(
            Ask(
                "How many plants does {n} plant in total? | What is the total number of plants in the garden?",
                "the number of plants in the garden = rows * each",
            ),
            Ask(
                "How many plants are left after the rabbits have been there?",
                "the number of plants at first = rows * each",
                "the number of plants left = @ - eaten",
            ),
        ),
        plant="lettuce/carrots/tomatoes/beans/cabbage/peppers/spinach/corn",
    ),
    story(
        "swimming laps",
        "{n} swims {laps} laps at the {place} pool every {day}.",
        "Each lap takes {mins} minutes.",
        "Before {he} starts, {he} warms up for {warm} minutes.",
        "A ticket for the pool costs ${price}.",
        "The pool is {length} meters long, and {m} works there as a lifeguard.",
        numbers={
            "laps": N("4-12", "the number of laps", "How many laps does {n} swim every {day}?"),
            "mins": N("2-9 minutes", "the time for each lap", "How many minutes does each lap take?"),
            "warm": N("5-18 minutes", "the time to warm up", "For how many minutes does {n} warm up?"),
            "price": N("$2.25-6.75/0.25", "the price of a ticket", "How much does a ticket for the pool cost?"),
            "length": N("20-50/5 meters", "the length of the pool", "How many meters long is the pool?"),
        },
        asks=(
            Ask(
                "How many minutes do all the laps take? | How long does it take {n} to swim all the laps?",
                "the time for all the laps = laps * mins",
            ),
            Ask(
                "How many minutes does {n} spend on the warm-up and the laps?",
                "the time for the laps = laps * mins",
                "the time for warm-up and laps = @ + warm",
            ),
        ),
        place=PLACE,
        day=DAY,
    ),
    story(
        "basketball game",
        "{n} scored {first} points in the first half and {second} points in the second half of a game in {place}.",
        "{His} teammate {m} scored {other} points that night.",
        "The gym was {full}% full, and a ticket cost ${price}.",
        "The coach called {pauses} time-outs.",
        numbers={
            "first": N(
                "13-28", "the number of points in the first half", "How many points did {n} score in the first half?"
            ),
            "second": N(
                "6-19", "the number of points in the second half", "How many points did {n} score in the second half?"
            ),
            "other": N("8-17", "the number of points {m} scored", "How many points did {m} score?"),
            "full": N("55-95/5%", "the share of the gym that was full", "What percent of the gym was full?"),
            "price": N("$4.50-12.50/0.5", "the price of a ticket", "How much did a ticket cost?"),
            "pauses": N("2-5", "the number of time-outs", "How many time-outs did the coach call?"),
        },
        asks=(
            Ask(
                "How many points did {n} score in the whole game? | What was the total score of {n}?",
                "the number of points {n} scored = first + second",
            ),
            Ask(
                "How many more points than {m} did {n} score?",
                "the number of points {n} scored = first + second",
                "the number of extra points {n} scored = @ - other",
            ),
            Ask(
                "How many points did {n} and {m} score together?",
                "the number of points {n} scored = first + second",
                "the number of points of both = @ + other",
            ),
        ),
        place=PLACE,
    ),
    story(
        "pizza party",
        "{n} orders {pizzas} large {kind} pizzas for {his} birthday party on {day}.",
        "A large pizza costs ${cost} and is cut into {slices} slices.",
        "The {guests} guests eat {eaten} slices before the cake comes.",
        "{n} gives the driver a {tip}% tip.",
        numbers={
            "pizzas": N("3-8", "the number of pizzas", "How many large pizzas does {n} order?"),
            "cost": N("$9-12", "the price of a large pizza", "How much does a large pizza cost?"),
            "slices": N("6-12/2", "the number of slices in a pizza", "Into how many slices is a pizza cut?"),
            "guests": N("7-19", "the number of guests", "How many guests are at the party?"),
            "eaten": N("11-17", "the number of slices eaten", "How many slices do the guests eat before the cake?"),
            "tip": N("15-25/5%", "the tip", "What percent tip does {n} give the driver?"),
        },
        asks=(
            Ask(
                "How much do all the pizzas cost? | How much does {n} pay for the pizzas without the tip?",
                "the price of all the pizzas = pizzas * cost",
            ),
            Ask("How many slices of pizza are there in total?", "the number of slices = pizzas * slices"),
            Ask(
                "How many slices are left when the cake comes?",
                "the number of slices at first = pizzas * slices",
                "the number of slices left = @ - eaten",
            ),
        ),
        kind="cheese/mushroom/pepperoni/vegetable/tomato",
        day=DAY,
    ),
    story(
        "summer job",
        "{n} earns ${pay} for every {job} in {place} this summer.",
        "In {month} {he} does this {times} times.",
        "{He} had ${saved} in {his} money box before the summer.",
        "The {thing} that {he} wants costs ${cost}.",
        "{His} cousin {m} works {hours} hours a week in a bakery.",
        numbers={
            "pay": N("$5-12", "the pay for every {job}", "How much does {n} earn for every {job}?"),
            "times": N("2-9", "the number of times in {month}", "How many times does {n} do the job in {month}?"),
            "saved": N(
                "$14-45", "the money {n} had before", "How much money did {n} have in the box before the summer?"
            ),
            "cost": N("$110-240/5", "the price of the {thing}", "How much does the {thing} cost?"),
            "hours": N("13-35", "the number of hours {m} works", "How many hours a week does {m} work?"),
        },
        asks=(
            Ask(
                "How much does {n} earn in {month}? | How many dollars does {n} make in {month}?",
                "the money {n} earns in {month} = pay * times",
            ),
            Ask(
                "How much money does {n} have at the end of {month}?",
                "the money {n} earns = pay * times",
                "the money {n} has then = @ + saved",
            ),
        ),
        job="lawn mowed/car washed/dog walked/fence painted",
        thing="bicycle/guitar/tent/skateboard/camera",
        month="June/July/August",
        place=PLACE,
    ),
    story(
        "cinema tickets",
        "{n} buys {adults} adult tickets and {kids} child tickets at the {place} cinema.",
        "An adult ticket costs ${adult}, while a child ticket costs ${kid}.",
        "{He} also spends ${snack} on popcorn for everyone.",
        "The film is {mins} minutes long and starts after {ads} minutes of advertising.",
        numbers={
            "adults": N("2-6", "the number of adult tickets", "How many adult tickets does {n} buy?"),
            "kids": N("3-9", "the number of child tickets", "How many child tickets does {n} buy?"),
            "adult": N("$8-12", "the price of an adult ticket", "How much does an adult ticket cost?"),
            "kid": N("$4-7", "the price of a child ticket", "How much does a child ticket cost?"),
            "snack": N("$13-28", "the money spent on popcorn", "How much does {n} spend on popcorn?"),
            "mins": N("90-150 minutes", "the length of the film", "How many minutes long is the film?"),
            "ads": N("11-25 minutes", "the length of the advertising", "How many minutes of advertising are there?"),
        },
        asks=(
            Ask(
                "How many tickets does {n} buy? | How many tickets does {n} buy in all?",
                "the number of tickets = adults + kids",
            ),
            Ask("How much do the adult tickets cost altogether?", "the price of the adult tickets = adults * adult"),
            Ask("How much do the child tickets cost altogether?", "the price of the child tickets = kids * kid"),
            Ask(
                "How much more does an adult ticket cost than a child ticket?",
                "the difference between the ticket prices = adult - kid",
            ),
            Ask(
                "How much does {n} spend on child tickets and popcorn together?",
                "the price of the child tickets = kids * kid",
                "the money for tickets and popcorn = @ + snack",
            ),
        ),
        place=PLACE,
    ),
    story(
        "fruit stand",
        "{n} buys {first} {fruit} and {second} {other} at the fruit stand on {day}.",
        "One pound of cherries costs ${price}.",
        "On the way home {he} eats {eaten} of the {fruit}.",
        "{His} bag can carry {load} pounds, and the walk takes {walk} minutes.",
        "At home {m} puts all the fruit into a big blue bowl.",
        numbers={
            "first": N("13-40", "the number of {fruit} {n} buys", "How many {fruit} does {n} buy?"),
            "second": N("6-30", "the number of {other} {n} buys", "How many {other} does {n} buy?"),
            "price": N("$1.50-6.50/0.25", "the price of a pound of cherries", "How much is one pound of cherries?"),
            "eaten": N("2-7", "the number of {fruit} eaten", "How many {fruit} does {n} eat on the way home?"),
            "load": N("11-25 pounds", "the load the bag can carry", "How many pounds can the bag carry?"),
            "walk": N("8-35 minutes", "the time for the walk", "How many minutes does the walk home take?"),
        },
        asks=(
            Ask("How many {fruit} and {other} does {n} buy altogether?", "the number of fruits = first + second"),
            Ask("How many {fruit} are left when {n} gets home?", "the number of {fruit} left = first - eaten"),
            Ask(
                "How many pieces of fruit does {m} put into the bowl?",
                "the number of fruits at first = first + second",
                "the number of fruits left = @ - eaten",
            ),
        ),
        fruit="apples/pears/plums/peaches",
        other="lemons/oranges/limes/bananas/kiwis",
        day=DAY,
    ),
    story(
        "family ages",
        "{n} is {age} years old, and {his} cousin {m} is {gap} years younger.",
        "In {years} years the family will move to {place}.",
        "Their grandmother turned {gran} this spring.",
        "{n} is {tall} centimeters tall.",
        "They live in a house with {rooms} rooms and a small yard.",
        numbers={
            "age": N("18-40 years", "the age of {n}", "How old is {n}?"),
            "gap": N("2-9 years", "the age gap of {n} and {m}", "How many years younger than {n} is {m}?"),
            "years": N("3-12", "the number of years until the move", "In how many years will the family move?"),
            "gran": N("61-89 years", "the age of the grandmother", "How old is the grandmother?"),
            "tall": N("140-188 centimeters", "the height of {n}", "How many centimeters tall is {n}?"),
            "rooms": N("4-11", "the number of rooms", "How many rooms does the house have?"),
        },
        asks=(
            Ask("How old is {m}? | What is the age of {m}?", "the age of {m} = age - gap"),
            Ask("How old will {n} be when the family moves?", "the age of {n} at the move = age + years"),
            Ask(
                "How old will {m} be when the family moves?",
                "the age of {m} = age - gap",
                "the age of {m} at the move = @ + years",
            ),
        ),
        place=PLACE,
    ),
    story(
        "painting rooms",
        "{n} wants to paint {rooms} {kind} rooms in {place} this {day}.",
        "{He} uses {cans} cans of paint for every room.",
        "{He} already owns {owned} cans that {m} left in the garage.",
        "One can costs ${price} and holds {liters} liters.",
        "After each coat {he} waits {dry} minutes.",
        numbers={
            "rooms": N("3-9", "the number of rooms", "How many rooms does {n} want to paint?"),
            "cans": N("4-8", "the number of cans for every room", "How many cans of paint does {n} use for a room?"),
            "owned": N("2-10", "the number of cans {n} owns", "How many cans of paint does {n} already own?"),
            "price": N("$7.25-19.75/0.5", "the price of one can", "How much does one can of paint cost?"),
            "liters": N("1.5-4.5/1 liters", "the paint in one can", "How many liters of paint does one can hold?"),
            "dry": N("15-50/5 minutes", "the waiting time", "How many minutes does {n} wait after each coat?"),
        },
        asks=(
            Ask(
                "How many cans of paint does {n} need for all the rooms?",
                "the number of cans for all the rooms = rooms * cans",
            ),
            Ask(
                "How many more cans does {n} have to buy?",
                "the number of cans for all the rooms = rooms * cans",
                "the number of cans to buy = @ - owned",
            ),
        ),
        kind="hotel/office/guest/school",
        day=DAY,
        place=PLACE,
    ),
    story(
        "bus ride",
        "{n} takes a bus that leaves {place} with {start} passengers on board.",
        "At the first stop {off} of them get off, and at the second stop {on} people get on.",
        "The ride to the museum takes {mins} minutes.",
        "A bus ticket costs ${price}.",
        "{His} friend {m} takes the train, which is {faster} minutes faster.",
        numbers={
            "start": N(
                "31-58", "the number of passengers at the start", "How many passengers are on the bus at first?"
            ),
            "off": N("4-15", "the number of people getting off", "How many passengers get off at the first stop?"),
            "on": N("3-18", "the number of people getting on", "How many people get on at the second stop?"),
            "mins": N("20-60/5 minutes", "the time for the ride", "How many minutes does the ride take?"),
            "price": N("$1.25-4.75/0.25", "the price of a bus ticket", "How much does a bus ticket cost?"),
            "faster": N("6-19 minutes", "the time the train saves", "How many minutes faster is the train?"),
        },
        asks=(
            Ask(
                "How many passengers are on the bus after the first stop?",
                "the number of passengers after the first stop = start - off",
            ),
            Ask(
                "How many passengers are on the bus after the second stop?",
                "the number of passengers after the first stop = start - off",
                "the number of passengers after the second stop = @ + on",
            ),
        ),
        place=PLACE,
    ),
    story(
        "toy workshop",
        "{n} makes {daily} wooden {toy}s a day in a workshop in {place}.",
        "This month {he} works on {days} days.",
        "Sadly, {broken} {toy}s break in the drying room.",
        "Every {toy} is sold for ${price}.",
        "{n} learned the craft {years} years ago from {m}.",
        numbers={
            "daily": N("3-9", "the number of {toy}s a day", "How many wooden {toy}s does {n} make a day?"),
            "days": N("6-12", "the number of working days", "On how many days does {n} work this month?"),
            "broken": N("2-11", "the number of broken {toy}s", "How many {toy}s break in the drying room?"),
            "price": N("$4.25-18.75/0.5", "the price of one {toy}", "For how much is every {toy} sold?"),
            "years": N(
                "13-30", "the number of years {n} knows the craft", "How many years ago did {n} learn the craft?"
            ),
        },
        asks=(
            Ask(
                "How many {toy}s does {n} make this month? | How many {toy}s are made this month?",
                "the number of {toy}s made = daily * days",
            ),
            Ask(
                "How many {toy}s can {n} still sell after some broke?",
                "the number of {toy}s made = daily * days",
                "the number of {toy}s left to sell = @ - broken",
            ),
        ),
        toy="train/horse/boat/puzzle/robot/whistle",
        place=PLACE,
    ),
    story(
        "collection album",
        "{n}'s {item} album has {pages} pages with {each} {item}s on each page.",
        "{His} uncle from {place} sends {gift} more {item}s, all from the year {year}.",
        "The rarest one is worth ${worth}.",
        "{m} owns an album too, but it weighs {heavy} pounds.",
        "{n} looks at the album almost every evening.",
        numbers={
            "pages": N("3-12", "the number of pages", "How many pages does the album have?"),
            "each": N("6-12", "the number of {item}s on each page", "How many {item}s are on each page?"),
            "gift": N("4-25", "the number of {item}s from the uncle", "How many {item}s does the uncle send?"),
            "year": N("1920-1999", "the year of the gift {item}s", "From which year are the {item}s the uncle sends?"),
            "worth": N("$12.50-80.50/1", "the worth of the rarest {item}", "How much is the rarest {item} worth?"),
            "heavy": N("1.5-6.5/1 pounds", "the weight of {m}'s album", "How many pounds does {m}'s album weigh?"),
        },
        asks=(
            Ask("How many {item}s are in the album?", "the number of {item}s in the album = pages * each"),
            Ask(
                "How many {item}s does {n} have, counting those from the uncle?",
                "the number of {item}s in the album = pages * each",
                "the number of {item}s in all = @ + gift",
            ),
        ),
        item="stamp/postcard/photo/card",
        place=PLACE,
    ),
    story(
        "weekly runs",
        "{n} runs {first} miles every {one} and {second} miles every {two} along the river.",
        "{He} has kept this up for {weeks} weeks.",
        "{His} running shoes cost ${price} and weigh {heavy} ounces each.",
        "On the last run {he} met {m}, who was walking {dogs} dogs.",
        numbers={
            "first": N("3-9 miles", "the distance on {one}", "How many miles does {n} run every {one}?"),
            "second": N("2-7 miles", "the distance on {two}", "How many miles does {n} run every {two}?"),
            "weeks": N("4-12", "the number of weeks", "For how many weeks has {n} kept this up?"),
            "price": N("$45.50-95.50/1", "the price of the shoes", "How much do the running shoes cost?"),
            "heavy": N("13-19 ounces", "the weight of one shoe", "How many ounces does each shoe weigh?"),
            "dogs": N("2-6", "the number of dogs", "How many dogs was {m} walking?"),
        },
        asks=(
            Ask("How many miles does {n} run in a week?", "the distance in a week = first + second"),
            Ask("How many miles has {n} run on the {one} runs?", "the distance on all {one} runs = first * weeks"),
            Ask(
                "How many miles has {n} run in all these weeks?",
                "the distance in a week = first + second",
                "the distance in all the weeks = @ * weeks",
            ),
        ),
        one="Monday/Tuesday/Wednesday",
        two="Friday/Saturday/Sunday",
    ),
    story(
        "bead bracelets",
        "{n} has {beads} {color} beads and uses {per} beads for each bracelet.",
        "At the {place} market {he} sells a bracelet for ${price}.",
        "The market is open for {hours} hours and has {stalls} stalls.",
        "A box for the bracelets costs ${box}.",
        "{m} helps with the knots.",
        numbers={
            "beads": N(
                "24-96", "the number of beads", "How many beads does {n} have?", "How many {color} beads are there?"
            ),
            "per": N("4-12", "the number of beads for each bracelet", "How many beads does {n} use for each bracelet?"),
            "price": N("$3-9", "the price of a bracelet", "For how much does {n} sell a bracelet?"),
            "hours": N("3-11", "the number of hours the market is open", "For how many hours is the market open?"),
            "stalls": N("13-55", "the number of stalls", "How many stalls does the market have?"),
            "box": N("$0.25-2.75/0.25", "the price of a box", "How much does a box for the bracelets cost?"),
        },
        asks=(
            Ask(
                "How many bracelets can {n} make? | How many bracelets are there when all the beads are used?",
                "the number of bracelets = beads / per",
            ),
            Ask(
                "How much money does {n} get for all the bracelets?",
                "the number of bracelets = beads / per",
                "the money for the bracelets = @ * price",
            ),
        ),
        color="red/blue/green/silver/golden/purple",
        place=PLACE,
    ),
    story(
        "soup kitchen",
        "{n} cooks {batches} batches of {soup} soup for the winter festival.",
        "One batch needs {cups} cups of water and {potatoes} potatoes.",
        "The soup has to simmer for {mins} minutes.",
        "A pound of {veg} costs ${price} at the store.",
        "{m} brings {bowls} clean bowls from home.",
        numbers={
            "batches": N("2-8", "the number of batches", "How many batches of soup does {n} cook?"),
            "cups": N("5-12", "the number of cups in one batch", "How many cups of water does one batch need?"),
            "potatoes": N("3-11", "the number of potatoes in one batch", "How many potatoes does one batch need?"),
            "mins": N("20-55/5 minutes", "the simmering time", "How many minutes does the soup have to simmer?"),
            "price": N("$0.75-4.25/0.25", "the price of a pound of {veg}", "How much does a pound of {veg} cost?"),
            "bowls": N("13-48", "the number of bowls", "How many clean bowls does {m} bring?"),
        },
        asks=(
            Ask(
                "How many cups of water does {n} need for all the batches?",
                "the number of cups for all batches = batches * cups",
            ),
            Ask(
                "How many potatoes does {n} need for all the batches?",
                "the number of potatoes for all batches = batches * potatoes",
            ),
            Ask(
                "How many cups of water and potatoes does one batch need together?",
                "the number of cups and potatoes = cups + potatoes",
            ),
        ),
        soup="tomato/leek/pumpkin/bean/lentil",
        veg="onions/celery/carrots/garlic",
    ),
    story(
        "rental shop",
        "{n} rents a {thing} for {hours} hours at the lake near {place}.",
        "The rent is ${rate} an hour, and there is a fee of ${fee} for cleaning.",
        "A life jacket weighs {heavy} pounds.",
        "The lake is {deep} feet deep, and {m} is afraid of deep water.",
        "Members of the club get {off}% off.",
        numbers={
            "hours": N("2-9", "the number of hours", "For how many hours does {n} rent the {thing}?"),
            "rate": N("$4-12", "the rent for an hour", "How much is the rent for one hour?"),
            "fee": N("$5-18", "the cleaning fee", "How much is the fee for cleaning?"),
            "heavy": N("1.5-4.5/1 pounds", "the weight of a life jacket", "How many pounds does a life jacket weigh?"),
            "deep": N("25-95/5 feet", "the depth of the lake", "How many feet deep is the lake?"),
            "off": N("20-50/10%", "the discount for members", "What percent off do members of the club get?"),
        },
        asks=(
            Ask("How much is the rent without the cleaning fee?", "the rent for all the hours = hours * rate"),
            Ask(
                "How much does {n} pay in total, as {he} is not a member?",
                "the rent for all the hours = hours * rate",
                "the total price with the fee = @ + fee",
            ),
        ),
        thing="kayak/canoe/rowing boat/paddle board/surfboard",
        place=PLACE,
    ),
    story(
        "growing puppy",
        "{n}'s {pet} weighed {before} pounds in {month} and weighs {now} pounds today.",
        "It eats {food} ounces of food a day.",
        "A bag of food lasts {days} days and costs ${price}.",
        "{m} walks it for {walk} minutes in the afternoon.",
        numbers={
            "before": N("5-19 pounds", "the weight in {month}", "How many pounds did the {pet} weigh in {month}?"),
            "now": N("22-48 pounds", "the weight today", "How many pounds does the {pet} weigh today?"),
            "food": N("4-12 ounces", "the food a day", "How many ounces of food does the {pet} eat a day?"),
            "days": N("6-12", "the number of days a bag lasts", "How many days does a bag of food last?"),
            "price": N("$8.25-29.75/0.5", "the price of a bag of food", "How much does a bag of food cost?"),
            "walk": N("15-60/5 minutes", "the time for the walk", "How many minutes does {m} walk the {pet}?"),
        },
        asks=(
            Ask("How many pounds has the {pet} gained since {month}?", "the weight gained = now - before"),
            Ask("How many ounces of food are in a bag?", "the food in a bag = food * days"),
        ),
        pet="puppy/dog/terrier/beagle/poodle",
        month="January/March/April/May/June/October",
    ),
    story(
        "laundry day",
        "{n} washes {loads} loads of laundry on {day}, and each load weighs {pounds} pounds.",
        "One wash takes {mins} minutes.",
        "The laundromat charges ${price} for a load.",
        "There are {shirts} shirts and {towels} towels in the baskets.",
        "{m} folds the clean clothes.",
        numbers={
            "loads": N("3-9", "the number of loads", "How many loads of laundry does {n} wash?"),
            "pounds": N("4-12 pounds", "the weight of each load", "How many pounds does each load weigh?"),
            "mins": N("40-70/10 minutes", "the time for one wash", "How many minutes does one wash take?"),
            "price": N("$1.25-5.75/0.25", "the price of a load", "How much does the laundromat charge for a load?"),
            "shirts": N("18-40", "the number of shirts", "How many shirts are in the baskets?"),
            "towels": N("5-17", "the number of towels", "How many towels are in the baskets?"),
        },
        asks=(
            Ask("How many pounds of laundry does {n} wash?", "the weight of all the laundry = loads * pounds"),
            Ask("How many shirts and towels are there together?", "the number of shirts and towels = shirts + towels"),
            Ask("How many more shirts than towels are there?", "the number of extra shirts = shirts - towels"),
        ),
        day=DAY,
    ),
    story(
        "dance class",
        "{n} teaches {dance} to {girls} girls and {boys} boys at the {place} school.",
        "For the show {he} splits them into groups of {size}.",
        "A lesson is {mins} minutes long and costs ${price}.",
        "The hall has {lamps} lamps, and {m} plays the piano.",
        numbers={
            "girls": N("13-32", "the number of girls", "How many girls does {n} teach?"),
            "boys": N("8-28", "the number of boys", "How many boys does {n} teach?"),
            "size": N("4-9", "the number of children in a group", "How many children are in each group?"),
            "mins": N("40-90/5 minutes", "the length of a lesson", "How many minutes long is a lesson?"),
            "price": N("$6.50-15.50/0.5", "the price of a lesson", "How much does a lesson cost?"),
            "lamps": N("10-40/2", "the number of lamps", "How many lamps does the hall have?"),
        },
        asks=(
            Ask(
                "How many children does {n} teach? | How many children are in the class in total?",
                "the number of children = girls + boys",
            ),
            Ask(
                "How many groups are there in the show?",
                "the number of children = girls + boys",
                "the number of groups = @ / size",
            ),
        ),
        dance="tango/ballet/salsa/folk dance/tap dance",
        place=PLACE,
    ),
    story(
        "music practice",
        "{n} practices the {instrument} for {mins} minutes a day on {days} days of the month.",
        "{He} knows {songs} songs by heart and is learning {more} more.",
        "A lesson with {m} costs ${price}.",
        "The concert hall in {place} seats {seats} people.",
        numbers={
            "mins": N("20-60/10 minutes", "the practice time a day", "How many minutes a day does {n} practice?"),
            "days": N("6-12", "the number of practice days", "On how many days of the month does {n} practice?"),
            "songs": N("13-45", "the number of songs {n} knows", "How many songs does {n} know by heart?"),
            "more": N("2-9", "the number of songs {n} is learning", "How many more songs is {n} learning?"),
            "price": N("$12.50-38.50/1", "the price of a lesson", "How much does a lesson with {m} cost?"),
            "seats": N("150-480/10", "the number of seats in the hall", "How many people does the concert hall seat?"),
        },
        asks=(
            Ask("How many minutes does {n} practice in the month?", "the practice time in the month = mins * days"),
            Ask(
                "How many songs will {n} know after learning the new ones?",
                "the number of songs {n} will know = songs + more",
            ),
        ),
        instrument="piano/violin/flute/guitar/trumpet/cello/drums",
        place=PLACE,
    ),
    story(
        "moving boxes",
        "{n} carries {boxes} boxes of {things} into the new flat in {place}, each weighing {pounds} pounds.",
        "The flat is on floor {floor} of the building.",
        "In the van there are {chairs} chairs and {lamps} lamps as well.",
        "The van costs ${price} for each hour.",
        "{m} holds the door open.",
        numbers={
            "boxes": N("4-12", "the number of boxes", "How many boxes does {n} carry?"),
            "pounds": N("5-12 pounds", "the weight of each box", "How many pounds does each box weigh?"),
            "floor": N("2-15", "the floor of the flat", "On which floor is the flat?"),
            "chairs": N("6-18", "the number of chairs", "How many chairs are in the van?"),
            "lamps": N("3-9", "the number of lamps", "How many lamps are in the van?"),
            "price": N("$15.50-35.50/1", "the price of the van for each hour", "How much does the van cost per hour?"),
        },
        asks=(
            Ask("How many pounds do all the boxes weigh together?", "the weight of all the boxes = boxes * pounds"),
            Ask("How many chairs and lamps are in the van?", "the number of chairs and lamps = chairs + lamps"),
            Ask(
                "How many boxes, chairs and lamps are there altogether?",
                "the number of chairs and lamps = chairs + lamps",
                "the number of things altogether = @ + boxes",
            ),
        ),
        things="books/plates/toys/tools/clothes/records",
        place=PLACE,
    ),
    story(
        "holiday photos",
        "{n} took {photos} photos of {thing} in {place} and deleted {bad} of them.",
        "{He} glues the rest into an album with {per} photos on a page.",
        "The hotel cost ${price} a night.",
        "{n} and {m} stayed for {nights} nights and walked {walk} miles.",
        numbers={
            "photos": N("50-98", "the number of photos {n} took", "How many photos did {n} take?"),
            "bad": N("10-26", "the number of photos deleted", "How many photos did {n} delete?"),
            "per": N("4-9", "the number of photos on a page", "How many photos are on a page of the album?"),
            "price": N("$60.50-130.50/5", "the price of a night", "How much did the hotel cost a night?"),
            "nights": N("3-9", "the number of nights", "For how many nights did {n} and {m} stay?"),
            "walk": N("27-48 miles", "the distance walked", "How many miles did {n} and {m} walk?"),
        },
        asks=(
            Ask(
                "How many photos did {n} keep? | How many photos were left?", "the number of photos kept = photos - bad"
            ),
            Ask(
                "How many pages of the album does {n} fill?",
                "the number of photos kept = photos - bad",
                "the number of pages = @ / per",
            ),
        ),
        thing="birds/bridges/churches/boats/flowers/mountains",
        place=PLACE,
    ),
    story(
        "lemonade stand",
        "{n} sells {cups} cups of {drink} for ${price} each at a stand in {place}.",
        "{He} spends ${spent} on sugar and paper cups.",
        "It is {heat} degrees in the shade that day.",
        "{His} partner {m} squeezes {lemons} lemons.",
        "The recipe asks for {sugar} cups of sugar in each jug.",
        numbers={
            "cups": N("8-12", "the number of cups sold", "How many cups of {drink} does {n} sell?"),
            "price": N("$2-5", "the price of one cup", "How much does one cup of {drink} cost?"),
            "spent": N("$6-15", "the money {n} spends", "How much does {n} spend on sugar and paper cups?"),
            "heat": N("80-99 degrees", "the heat in the shade", "How many degrees is it in the shade?"),
            "lemons": N("25-60", "the number of lemons", "How many lemons does {m} squeeze?"),
            "sugar": N("1.5-5.5/1 cups", "the sugar in each jug", "How many cups of sugar go in each jug?"),
        },
        asks=(
            Ask(
                "How much money does {n} take in? | How many dollars does {n} get for the {drink}?",
                "the money {n} takes in = cups * price",
            ),
            Ask(
                "How much money is left after paying for the sugar and the paper cups?",
                "the money {n} takes in = cups * price",
                "the money left = @ - spent",
            ),
        ),
        drink="lemonade/iced tea/orange juice/apple juice/ginger ale",
        place=PLACE,
    ),
    story(
        "phone plan",
        "{n} pays ${monthly} a month for a phone plan with {data} gigabytes of data.",
        "{He} has had the plan for {months} months.",
        "The phone itself cost ${phone}.",
        "Last week {he} sent {texts} messages to {m} and {calls} to {his} mother.",
        numbers={
            "monthly": N("$10-40/10", "the price of a month", "How much does {n} pay for a month?"),
            "data": N("3-25 gigabytes", "the data in the plan", "How many gigabytes of data are in the plan?"),
            "months": N("2-12", "the number of months", "For how many months has {n} had the plan?"),
            "phone": N("$120-390/5", "the price of the phone", "How much did the phone cost?"),
            "texts": N("21-60", "the number of messages to {m}", "How many messages did {n} send to {m}?"),
            "calls": N(
                "5-19", "the number of messages to {his} mother", "How many messages did {n} send to {his} mother?"
            ),
        },
        asks=(
            Ask("How much has {n} paid for the plan so far?", "the money paid so far = monthly * months"),
            Ask("How many messages did {n} send last week?", "the number of messages sent = texts + calls"),
            Ask(
                "How many more messages did {n} send to {m} than to {his} mother?",
                "the number of extra messages to {m} = texts - calls",
            ),
        ),
    ),
    story(
        "apartment building",
        "{n} manages a {color} building in {place} with {floors} floors and {flats} apartments on each floor.",
        "At the moment {empty} of the apartments are empty.",
        "The elevator carries {load} people and was repaired {weeks} weeks ago.",
        "{m} rents the smallest apartment for ${rent} a month.",
        numbers={
            "floors": N("5-12", "the number of floors", "How many floors does the building have?"),
            "flats": N("4-10", "the number of apartments on each floor", "How many apartments are on each floor?"),
            "empty": N("3-15", "the number of empty apartments", "How many of the apartments are empty?"),
            "load": N("6-14", "the number of people the elevator carries", "How many people does the elevator carry?"),
            "weeks": N("2-19", "the number of weeks since the repair", "How many weeks ago was the elevator repaired?"),
            "rent": N("$450-890/10", "the rent that {m} pays", "How much rent does {m} pay a month?"),
        },
        asks=(
            Ask(
                "How many apartments are in the building? | What is the total number of apartments?",
                "the number of apartments = floors * flats",
            ),
            Ask(
                "How many of the apartments are not empty?",
                "the number of apartments = floors * flats",
                "the number of apartments in use = @ - empty",
            ),
        ),
        color="red/white/yellow/gray/brown",
        place=PLACE,
    ),
    story(
        "board games",
        "{n} played {games} games of {game} against {m} this winter and won {won} of them.",
        "A win gives {points} points.",
        "At the end of the winter {n} gets {bonus} extra points for fair play.",
        "Each game lasted about {mins} minutes.",
        "The board was bought for ${price} at a flea market.",
        numbers={
            "games": N("25-60", "the number of games played", "How many games did {n} play against {m}?"),
            "won": N("5-12", "the number of games won", "How many games did {n} win?"),
            "points": N("2-8", "the number of points for a win", "How many points does a win give?"),
            "bonus": N("10-20", "the number of extra points", "How many extra points does {n} get?"),
            "mins": N("15-70/5 minutes", "the length of a game", "How many minutes did each game last?"),
            "price": N("$2.50-11.50/0.5", "the price of the board", "How much was paid for the board?"),
        },
        asks=(
            Ask("How many of the games did {n} not win?", "the number of games not won = games - won"),
            Ask("How many points does {n} get for the wins?", "the number of points for the wins = won * points"),
            Ask(
                "How many points does {n} have at the end of the winter?",
                "the number of points for the wins = won * points",
                "the number of points at the end = @ + bonus",
            ),
        ),
        game="chess/checkers/dominoes/backgammon/rummy",
    ),
    story(
        "homework",
        "{n} has {maths} {subject} problems and {words} new words to learn before {day}.",
        "Each problem takes {mins} minutes.",
        "{He} did {done} of the problems on the bus.",
        "The last test had {pages} pages, and {n} got {score}% of it right.",
        "{m} offers to help.",
        numbers={
            "maths": N("6-12", "the number of problems", "How many {subject} problems does {n} have?"),
            "words": N("15-40", "the number of new words", "How many new words does {n} have to learn?"),
            "mins": N("4-9 minutes", "the time for each problem", "How many minutes does each problem take?"),
            "done": N("2-4", "the number of problems done", "How many problems did {n} do on the bus?"),
            "pages": N("2-9", "the number of pages in the test", "How many pages did the last test have?"),
            "score": N("55-95/5%", "the share {n} got right", "What percent of the last test did {n} get right?"),
        },
        asks=(
            Ask("How many problems are left to do?", "the number of problems left = maths - done"),
            Ask("How many minutes do all the problems take?", "the time for all the problems = maths * mins"),
            Ask(
                "How many minutes will the problems that are left take?",
                "the number of problems left = maths - done",
                "the time for the problems left = @ * mins",
            ),
        ),
        subject="math/physics/chemistry/geometry/algebra",
        day=DAY,
    ),
    story(
        "shopping for clothes",
        "{n} buys {first} {one} and {second} pairs of socks in {place}.",
        "The {one} cost ${price} each, and a pair of socks costs ${socks}.",
        "{He} came with ${cash} in {his} wallet.",
        "On {day} everything in the shop is {off}% cheaper.",
        "{m} waits outside for {mins} minutes.",
        numbers={
            "first": N("2-6", "the number of {one}", "How many {one} does {n} buy?"),
            "second": N("3-9", "the number of pairs of socks", "How many pairs of socks does {n} buy?"),
            "price": N("$7-12", "the price of one of the {one}", "How much does each of the {one} cost?"),
            "socks": N("$1.25-4.75/0.25", "the price of a pair of socks", "How much does a pair of socks cost?"),
            "cash": N("$75-98", "the money in the wallet", "How much money did {n} have in the wallet?"),
            "off": N("10-50/10%", "the discount on {day}", "What percent cheaper is everything on {day}?"),
            "mins": N("13-29 minutes", "the time {m} waits", "How many minutes does {m} wait outside?"),
        },
        asks=(
            Ask("How much does {n} spend on the {one}?", "the price of all the {one} = first * price"),
            Ask(
                "How much money would {n} have left after paying only for the {one}?",
                "the price of all the {one} = first * price",
                "the money left = cash - @",
            ),
        ),
        one="shirts/hats/scarves/belts/caps/sweaters",
        place=PLACE,
        day=DAY,
    ),
    story(
        "candy sharing",
        "{n} shares a bag of {sweets} {kind} candies with the {kids} children of {his} street.",
        "The bag cost ${price} and weighed {grams} grams.",
        "At home {n} has {more} chocolate bars in a box.",
        "{m} brings {cans} cans of soda for everyone.",
        numbers={
            "sweets": N("24-96", "the number of candies", "How many candies are in the bag?"),
            "kids": N("3-12", "the number of children", "How many children of the street get candies?"),
            "price": N("$2.25-8.75/0.25", "the price of the bag", "How much did the bag of candies cost?"),
            "grams": N("250-750/50 grams", "the weight of the bag", "How many grams did the bag weigh?"),
            "more": N("7-20", "the number of chocolate bars", "How many chocolate bars does {n} have at home?"),
            "cans": N("6-23", "the number of cans of soda", "How many cans of soda does {m} bring?"),
        },
        asks=(
            Ask(
                "How many candies does each child get if all get the same? | How many candies is one equal share?",
                "the number of candies for each child = sweets / kids",
            ),
            Ask(
                "How many sweets would a child have with its share and all the chocolate bars?",
                "the number of candies for each child = sweets / kids",
                "the total number of sweets = @ + more",
            ),
        ),
        kind="lemon/cherry/mint/toffee/apple/honey",
    ),
    story(
        "water tank",
        "{n} fills a tank with {full} liters of rain water for the {animal}s on {day}.",
        "The {animal}s drink {drink} liters a day.",
        "After {days} days it rains again.",
        "The pump runs for {mins} minutes and was bought for ${price}.",
        "{m} checks the water level in the evening.",
        numbers={
            "full": N(
                "60-99 liters", "the water in the full tank", "How many liters of water are in the tank at first?"
            ),
            "drink": N("4-12 liters", "the water drunk a day", "How many liters do the {animal}s drink a day?"),
            "days": N("2-5", "the number of days until the rain", "After how many days does it rain again?"),
            "mins": N("15-55/5 minutes", "the running time of the pump", "For how many minutes does the pump run?"),
            "price": N("$30.50-58.50/1", "the price of the pump", "How much did the pump cost?"),
        },
        asks=(
            Ask(
                "How many liters do the {animal}s drink before it rains?",
                "the water drunk before the rain = drink * days",
            ),
            Ask(
                "How many liters are in the tank when it rains again?",
                "the water drunk before the rain = drink * days",
                "the water left = full - @",
            ),
        ),
        animal="horse/donkey/pony/cow/llama",
        day=DAY,
    ),
    # Kept for "test_new" from here on.
    story(
        "aquarium",
        "{n}'s aquarium has {guppies} {fish} and {snails} snails, a gift from {m}.",
        "{He} feeds them {grams} grams of flakes each morning.",
        "On {day} {he} adds {fresh} more {fish} to the water.",
        "The tank holds {liters} liters and cost ${price}.",
        numbers={
            "guppies": N("14-48", "the number of {fish} at first", "How many {fish} did the aquarium have at first?"),
            "snails": N("3-12", "the number of snails", "How many snails are in the aquarium?"),
            "grams": N(
                "1.5-7.5/1 grams", "the flakes each morning", "How many grams of flakes does {n} feed each morning?"
            ),
            "fresh": N("5-13", "the number of {fish} added", "How many {fish} does {n} add on {day}?"),
            "liters": N("60-180/10 liters", "the size of the tank", "How many liters does the tank hold?"),
            "price": N("$45.50-85.50/1", "the price of the tank", "How much did the tank cost?"),
        },
        asks=(
            Ask(
                "How many {fish} and snails did the aquarium have at first?",
                "the number of animals at first = guppies + snails",
            ),
            Ask(
                "How many more {fish} than snails were there at first?", "the number of extra {fish} = guppies - snails"
            ),
            Ask(
                "How many animals are in the aquarium after {day}?",
                "the number of animals at first = guppies + snails",
                "the number of animals in the end = @ + fresh",
            ),
        ),
        fish="guppies/tetras/goldfish/minnows",
        day=DAY,
        new=True,
    ),
    story(
        "ribbon",
        "{n} cuts a {color} ribbon of {length} inches into pieces of {piece} inches for {his} {thing}.",
        "A meter of this ribbon costs ${price}.",
        "{m} bends {bows} bows out of wire in {mins} minutes.",
        "The scissors are {blade} inches long.",
        numbers={
            "length": N("24-96 inches", "the length of the ribbon", "How many inches long is the ribbon?"),
            "piece": N("3-12 inches", "the length of each piece", "How many inches long is each piece?"),
            "price": N("$0.75-3.75/0.25", "the price of a meter of ribbon", "How much does a meter of ribbon cost?"),
            "bows": N("13-40", "the number of bows", "How many bows does {m} bend?"),
            "mins": N("20-55/5 minutes", "the time for the bows", "How many minutes does {m} take for the bows?"),
            "blade": N("4.5-8.5/1 inches", "the length of the scissors", "How many inches long are the scissors?"),
        },
        asks=(
            Ask(
                "How many pieces of ribbon does {n} get? | Into how many pieces is the ribbon cut?",
                "the number of pieces = length / piece",
            ),
            Ask(
                "How many pieces of ribbon and bows are there together?",
                "the number of pieces = length / piece",
                "the number of pieces and bows = @ + bows",
            ),
        ),
        color="red/pink/white/blue/green/gold",
        thing="presents/dresses/wreaths/curtains",
        new=True,
    ),
    story(
        "train seats",
        "{n} boards a train with {cars} cars in {place}, and every car has {seats} free seats.",
        "Then {taken} of the free seats are taken by a school class.",
        "The train arrives {late} minutes late.",
        "{His} ticket cost ${price}, a discount of {off}%.",
        "{m} waits on the platform with flowers.",
        numbers={
            "cars": N("3-9", "the number of cars", "How many cars does the train have?"),
            "seats": N("5-12", "the number of free seats in every car", "How many free seats does every car have?"),
            "taken": N("2-13", "the number of seats the class takes", "How many seats does the school class take?"),
            "late": N("14-28 minutes", "the delay of the train", "How many minutes late does the train arrive?"),
            "price": N("$15.50-48.50/1", "the price of the ticket", "How much did the ticket cost?"),
            "off": N("30-60/10%", "the discount on the ticket", "What percent discount did {n} get?"),
        },
        asks=(
            Ask("How many free seats does the train have at first?", "the number of free seats = cars * seats"),
            Ask(
                "How many seats are free after the school class sits down?",
                "the number of free seats at first = cars * seats",
                "the number of seats still free = @ - taken",
            ),
        ),
        place=PLACE,
        new=True,
    ),
    story(
        "museum visit",
        "{n} leads {pupils} pupils and {adults} parents through the {kind} museum on {day}.",
        "The tour visits {halls} halls and stays {mins} minutes in each hall.",
        "A poster in the gift shop costs ${price}.",
        "The oldest piece was found by {m} in {year}.",
        numbers={
            "pupils": N("24-60", "the number of pupils", "How many pupils does {n} lead through the museum?"),
            "adults": N("4-13", "the number of parents", "How many parents are on the tour?"),
            "halls": N("3-9", "the number of halls", "How many halls does the tour visit?"),
            "mins": N("5-12 minutes", "the time in each hall", "How many minutes does the tour stay in each hall?"),
            "price": N("$3.25-12.75/0.5", "the price of a poster", "How much does a poster cost?"),
            "year": N("1880-1990", "the year of the oldest find", "In which year was the oldest piece found?"),
        },
        asks=(
            Ask("How many pupils and parents are on the tour?", "the number of visitors = pupils + adults"),
            Ask("How many minutes does the whole tour take?", "the time for the tour = halls * mins"),
            Ask("How many more pupils than parents are on the tour?", "the number of extra pupils = pupils - adults"),
        ),
        kind="art/history/science/railway/ship",
        day=DAY,
        new=True,
    ),
    story(
        "typing",
        "{n} types {rate} words a minute on {his} new {machine} and writes for {mins} minutes.",
        "The first page has {lines} lines and {errors} errors.",
        "{He} drinks {tea} cups of tea while {he} works.",
        "A pack of paper costs ${price}, and {m} pays for it.",
        numbers={
            "rate": N("30-80/10", "the number of words a minute", "How many words does {n} type in a minute?"),
            "mins": N("5-12", "the number of minutes {n} writes", "For how many minutes does {n} write?"),
            "lines": N("21-45", "the number of lines", "How many lines does the first page have?"),
            "errors": N("2-9", "the number of errors", "How many errors are on the first page?"),
            "tea": N("3-7", "the number of cups of tea", "How many cups of tea does {n} drink?"),
            "price": N("$3.25-9.75/0.25", "the price of a pack of paper", "How much does a pack of paper cost?"),
        },
        asks=(
            Ask("How many words does {n} write?", "the number of words {n} writes = rate * mins"),
            Ask(
                "How many lines and errors does the first page have together?",
                "the number of lines and errors = lines + errors",
            ),
        ),
        machine="laptop/computer/keyboard/tablet",
        new=True,
    ),
    story(
        "tree planting",
        "{n} and {helpers} volunteers plant {kind} trees in {place}, and each volunteer plants {each} trees.",
        "{n} plants {own} trees alone.",
        "A young tree costs ${price} and is {tall} inches tall.",
        "Of last year's trees {dead}% did not survive the frost.",
        numbers={
            "helpers": N("3-9", "the number of volunteers", "How many volunteers plant trees with {n}?"),
            "each": N("4-12", "the number of trees from each volunteer", "How many trees does each volunteer plant?"),
            "own": N("8-22", "the number of trees {n} plants", "How many trees does {n} plant alone?"),
            "price": N("$4.25-14.75/0.5", "the price of a young tree", "How much does a young tree cost?"),
            "tall": N("24-60/2 inches", "the height of a young tree", "How many inches tall is a young tree?"),
            "dead": N("5-20/5%", "the share of trees lost", "What percent of last year's trees did not survive?"),
        },
        asks=(
            Ask(
                "How many trees do the volunteers plant altogether?",
                "the number of trees from the volunteers = helpers * each",
            ),
            Ask(
                "How many trees are planted, counting those of {n}?",
                "the number of trees from the volunteers = helpers * each",
                "the number of trees planted = @ + own",
            ),
        ),
        kind="oak/pine/birch/maple/cherry",
        place=PLACE,
        new=True,
    ),
    story(
        "knitting",
        "{n} knits {first} {thing}s in the autumn and {second} {thing}s in the winter for a shelter in {place}.",
        "Every {thing} needs {yarn} meters of yarn and {evenings} evenings of work.",
        "A ball of wool costs ${price} at the market.",
        "{m} drives the {thing}s to the shelter, which is {far} miles away.",
        numbers={
            "first": N(
                "5-18", "the number of {thing}s in the autumn", "How many {thing}s does {n} knit in the autumn?"
            ),
            "second": N(
                "3-14", "the number of {thing}s in the winter", "How many {thing}s does {n} knit in the winter?"
            ),
            "yarn": N("30-95/5 meters", "the yarn for a {thing}", "How many meters of yarn does a {thing} need?"),
            "evenings": N(
                "2-6", "the number of evenings for a {thing}", "How many evenings of work does a {thing} need?"
            ),
            "price": N("$2.25-8.75/0.25", "the price of a ball of wool", "How much does a ball of wool cost?"),
            "far": N("15-29 miles", "the distance to the shelter", "How many miles away is the shelter?"),
        },
        asks=(
            Ask("How many {thing}s does {n} knit in both seasons?", "the number of {thing}s = first + second"),
            Ask(
                "How many more {thing}s does {n} knit in the autumn than in the winter?",
                "the number of extra {thing}s in the autumn = first - second",
            ),
            Ask(
                "How many evenings does {n} work on all the {thing}s?",
                "the number of {thing}s = first + second",
                "the number of evenings of work = @ * evenings",
            ),
        ),
        thing="blanket/hat/jumper/sweater/mitten",
        place=PLACE,
        new=True,
    ),
    story(
        "ice cream shop",
        "{n} serves {cones} cones and {cups} cups of {flavor} ice cream at {his} shop in {place}.",
        "A cone costs ${price}, and each cup has {scoops} scoops.",
        "The shop offers {kinds} kinds of ice cream.",
        "The freezer is set to {cold} degrees, and {m} cleans it once a week.",
        numbers={
            "cones": N("20-55", "the number of cones", "How many cones does {n} serve?"),
            "cups": N("6-12", "the number of cups", "How many cups of ice cream does {n} serve?"),
            "price": N("$1.75-4.75/0.25", "the price of a cone", "How much does a cone cost?"),
            "scoops": N("2-5", "the number of scoops in each cup", "How many scoops does each cup have?"),
            "kinds": N("13-28", "the number of kinds", "How many kinds of ice cream does the shop offer?"),
            "cold": N("10-19 degrees", "the cold of the freezer", "To how many degrees is the freezer set?"),
        },
        asks=(
            Ask("How many cones and cups does {n} serve?", "the number of cones and cups = cones + cups"),
            Ask("How many scoops go into all the cups?", "the number of scoops in the cups = cups * scoops"),
            Ask(
                "How many scoops are served if every cone gets just a single scoop?",
                "the number of scoops in the cups = cups * scoops",
                "the number of scoops in all = @ + cones",
            ),
        ),
        flavor="vanilla/mango/lemon/chocolate/hazelnut",
        place=PLACE,
        new=True,
    ),
)

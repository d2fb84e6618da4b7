// The tab Embed: texts, and their similarities as a table.

// A table of more rows shows nothing any more.
const MOST_ROWS = 64;
const embedding = new Action("embed-note");
let compared = null;

const embedTexts = () => ofLines($("embed-texts").value).map((line) => line.text);

/** The fields of the request that are not as they would be anyway. */
function embedOptions() {
  const [model, dimensions, truncate] = [$("embed-model").value, $("embed-dimensions").valueAsNumber, $("embed-truncate").checked];
  return { ...(model && { model }), ...(dimensions && { dimensions }), ...(truncate && { truncate }) };
}

async function compare(signal) {
  const texts = embedTexts();
  if (texts.length > MOST_ROWS) throw new Error(`There are ${texts.length} texts; this page shows ${MOST_ROWS} at most.`);
  if (!texts.length) throw new Error("There is no text yet: write one a line.");
  embedding.say("Embedding…");
  const start = performance.now();
  const response = await post("v1/embeddings", { input: texts, ...embedOptions(), encoding_format: "base64" }, signal);
  const { data, usage } = await response.json();
  compared = { texts, vectors: data.map((row) => decode(row.embedding)) };
  $("embed-results").hidden = false;
  showHeat(compared);
  showMap(compared);
  const took = `${response.headers.get("x-inference-time") ?? "?"} ms of inference, ${inTime(performance.now() - start)} with the way`;
  embedding.say(`${nearest(compared)}${count(usage.prompt_tokens, "token")}; ${took}.`);
}

/** Names the two texts that are most alike. */
function nearest({ vectors }) {
  if (vectors.length < 2) return "";
  const pairs = vectors.flatMap((a, i) => vectors.slice(0, i).map((b, j) => ({ i: j, j: i, score: dot(a, b) })));
  const { i, j, score } = pairs.reduce((top, pair) => (pair.score > top.score ? pair : top));
  return `Most alike are ${i + 1} and ${j + 1}, with ${score.toFixed(2)}. `;
}

function showHeat({ texts, vectors }) {
  const columns = texts.map((text, i) => element("th", { scope: "col", title: text }, String(i + 1)));
  const head = element("thead", {}, element("tr", {}, element("td"), ...columns));
  const rows = texts.map((text, i) => {
    const label = element("th", { scope: "row", title: text }, `${i + 1} `, element("span", {}, text));
    return element("tr", {}, label, ...vectors.map((vector) => heatCell(dot(vectors[i], vector))));
  });
  $("heat").replaceChildren(head, element("tbody", {}, ...rows));
}

/** A number on its colour, by day and by night. */
function heatCell(score) {
  const cell = element("td", {}, score.toFixed(2));
  for (const [time, colours] of Object.entries(RAMPS)) {
    const colour = ramp(colours, score);
    cell.style.setProperty(`--${time}`, `rgb(${colour})`);
    cell.style.setProperty(`--on-${time}`, ink(colour));
  }
  return cell;
}

function startEmbed() {
  on($("embed-form"), "submit", (event) => {
    event.preventDefault();
    embedding.run(compare);
  });
  for (const id of ["embed-form", "code-title"]) on($(id).closest("form, section"), "input", showCode);
  on($("code-copy"), "click", copyCode);
  on(window, "resize", () => compared && showMap(compared));
}

// The Embeddings tab: texts, their similarity matrix and their map.

// A larger matrix is not readable.
const MAX_MATRIX_TEXTS = 64;
const embedAction = new Action("embed-message");
// The texts and vectors of the last comparison.
let compared = null;

const embeddingTexts = () => parseLines($("embed-texts").value).map((document) => document.text);

/** The request fields that differ from their defaults. */
function embeddingOptions() {
  const [model, dimensions, truncate] = [$("embed-model").value, $("embed-dimensions").valueAsNumber, $("embed-truncate").checked];
  return { ...(model && { model }), ...(dimensions && { dimensions }), ...(truncate && { truncate }) };
}

async function compareTexts(signal) {
  const texts = embeddingTexts();
  if (texts.length > MAX_MATRIX_TEXTS) throw new Error(`There are ${texts.length} texts; this page shows at most ${MAX_MATRIX_TEXTS}.`);
  if (!texts.length) throw new Error("Enter at least one text.");
  embedAction.showMessage("Embedding…");
  const start = performance.now();
  const response = await post("v1/embeddings", { input: texts, ...embeddingOptions(), encoding_format: "base64" }, signal);
  const { data, usage } = await response.json();
  compared = { texts, vectors: data.map((item) => decodeEmbedding(item.embedding)) };
  $("embed-results").hidden = false;
  showSimilarityMatrix(compared);
  showMap(compared);
  const inferenceTime = response.headers.get("x-inference-time") ?? "?";
  const times = `${inferenceTime} ms inference, ${formatMilliseconds(performance.now() - start)} round trip`;
  embedAction.showMessage(`${mostSimilarPair(compared)}${pluralize(usage.prompt_tokens, "token")}; ${times}.`);
}

function mostSimilarPair({ vectors }) {
  if (vectors.length < 2) return "";
  const pairs = vectors.flatMap((a, i) => vectors.slice(0, i).map((b, j) => ({ i: j, j: i, score: dot(a, b) })));
  const { i, j, score } = pairs.reduce((top, pair) => (pair.score > top.score ? pair : top));
  return `Most similar: ${i + 1} and ${j + 1} (${score.toFixed(2)}). `;
}

function showSimilarityMatrix({ texts, vectors }) {
  const columns = texts.map((text, i) => element("th", { scope: "col", title: text }, String(i + 1)));
  const head = element("thead", {}, element("tr", {}, element("td"), ...columns));
  const rows = texts.map((text, i) => {
    const label = element("th", { scope: "row", title: text }, `${i + 1} `, element("span", {}, text));
    return element("tr", {}, label, ...vectors.map((vector) => similarityCell(dot(vectors[i], vector))));
  });
  $("similarity-matrix").replaceChildren(head, element("tbody", {}, ...rows));
}

/** A score on its color, for the light and the dark color scheme. */
function similarityCell(score) {
  const cell = element("td", {}, score.toFixed(2));
  for (const [scheme, stops] of Object.entries(COLOR_STOPS)) {
    const color = colorScale(stops, score);
    cell.style.setProperty(`--${scheme}`, `rgb(${color})`);
    cell.style.setProperty(`--on-${scheme}`, textColor(color));
  }
  return cell;
}

function startEmbeddings() {
  on($("embed-form"), "submit", (event) => {
    event.preventDefault();
    embedAction.run(compareTexts);
  });
  for (const id of ["embed-form", "snippet-title"]) on($(id).closest("form, section"), "input", showSnippet);
  on($("snippet-copy"), "click", copySnippet);
  on(window, "resize", () => compared && showMap(compared));
}

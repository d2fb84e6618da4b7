// The Search tab: indexes documents in this page, or searches the server's index.

// Few documents per request, so that the progress bar advances.
const MAX_BATCH_DOCUMENTS = 32;
// Characters of the document shown before and after a chunk.
const CONTEXT_CHARS = 120;

const buildAction = new Action("build-message", { stop: "build-stop", progress: "build-progress" });
const searchAction = new Action("search-message");
// The chosen files with their documents.
const files = [];
// The chunks of all documents with their vectors; null until the index is built, and after the documents have changed.
let pageIndex = null;

const allDocuments = () => [...parseLines($("documents").value), ...files.flatMap((file) => file.documents)];

/** Groups documents, split where they are long, into batches whose points fit into a response. */
function batchDocuments(documents, chunking) {
  const [batches, limit] = [[[]], maxRequestChars(chunking)];
  let size = 0;
  for (const piece of documents.flatMap((document) => splitLongText(document.text, limit).map((part) => ({ document, ...part })))) {
    if (batches.at(-1).length === MAX_BATCH_DOCUMENTS || size + piece.text.length > limit) {
      batches.push([]);
      size = 0;
    }
    batches.at(-1).push(piece);
    size += piece.text.length;
  }
  return batches.filter((batch) => batch.length);
}

async function buildIndex(signal) {
  const documents = allDocuments();
  if (!documents.length) throw new Error("There are no documents yet.");
  const chunking = { tokens: $("chunk-tokens").valueAsNumber, overlap: $("chunk-overlap").valueAsNumber };
  const [chunks, start, batches] = [[], performance.now(), batchDocuments(documents, chunking)];
  for (const [done, batch] of batches.entries()) {
    buildAction.showMessage(`Embedding: ${pluralize(chunks.length, "chunk")} so far…`);
    Object.assign($("build-progress"), { max: batches.length, value: done });
    chunks.push(...(await embedBatch(batch, chunking, signal)));
  }
  pageIndex = { chunks };
  const counts = `${pluralize(documents.length, "document")} in ${pluralize(chunks.length, "chunk")}`;
  buildAction.showMessage(`Indexed ${counts} in ${formatMilliseconds(performance.now() - start)}.`);
}

/** The chunks of a batch of documents with their vectors. */
async function embedBatch(batch, chunking, signal) {
  const body = {
    // Error messages refer to a document by its id, so the id contains the document's name.
    documents: batch.map(({ document, text }, i) => ({ id: `${i}: ${document.name}`, text })),
    format: "json",
    encoding_format: "base64",
    chunk: chunking,
  };
  const pieceOfId = new Map(body.documents.map(({ id }, i) => [id, batch[i]]));
  const points = await (await post("documents", body, signal)).json();
  return points.map((point) => {
    const { document, offset } = pieceOfId.get(point.document_id);
    const vector = decodeEmbedding(point.embedding);
    return { document, start: offset + point.start, end: offset + point.end, text: point.text, vector };
  });
}

/** Builds the index unless it is up to date. */
async function ensureIndex(signal) {
  if (pageIndex) return;
  searchAction.showMessage("Building the index…");
  const isBuilt = await buildAction.run(buildIndex);
  signal.throwIfAborted();
  if (!isBuilt) throw new Error("The index could not be built: see the message below the documents.");
}

const usesServerIndex = () => radioValue("search-source") === "server-index";

async function runSearch(signal) {
  const [query, k] = [$("query").value, $("result-count").valueAsNumber];
  if (!usesServerIndex()) await ensureIndex(signal);
  searchAction.showMessage("Searching…");
  const start = performance.now();
  const results = await (usesServerIndex() ? searchServerIndex : searchPageIndex)(query, k, signal);
  const views = results.map((result) => resultView(result, queryStems(query)));
  $("results").replaceChildren(...views.map((view) => view.item));
  searchAction.showMessage(`${pluralize(results.length, "result")} in ${formatMilliseconds(performance.now() - start)}.`);
  await markBestSentences(query, results, views, signal);
}

async function searchPageIndex(query, k, signal) {
  const [vector] = await embed([query], signal, { truncate: false });
  const hits = topK(pageIndex.chunks.map((chunk) => dot(chunk.vector, vector)), k);
  return hits.map(({ index, score }) => ({ ...pageIndex.chunks[index], score }));
}

async function searchServerIndex(query, k, signal) {
  const { results } = await (await post("search", { query, k, mode: $("mode").value }, signal)).json();
  return results.map(({ id, score, text, metadata }) => ({ document: { name: id, text, metadata }, score, text }));
}

/** Marks the sentence of each result that is most similar to the query. */
async function markBestSentences(query, results, views, signal) {
  const sentences = results.map((result) => splitSentences(result.text));
  const [queryVector, ...vectors] = await embed([query, ...sentences.flat()], signal);
  for (const [i, list] of sentences.entries()) {
    const listVectors = vectors.splice(0, list.length);
    const [best] = topK(listVectors.map((vector) => dot(vector, queryVector)), 1);
    views[i].mark(list[best?.index]);
  }
}

/** The list item of a result, and a function that marks one of its sentences. */
function resultView({ document, score, start, end, text }, stems) {
  const bar = element("span", { class: "bar" });
  bar.style.setProperty("--fraction", `${Math.round(100 * Math.min(Math.max(score, 0), 1))}%`);
  const head = element(
    "div",
    { class: "head" },
    element("strong", { class: "grow" }, document.name),
    bar,
    element("span", { class: "score" }, score.toFixed(3)),
  );
  const chunk = element("span");
  const [before, after] = surroundingText(document.text, start, end);
  const item = element("li", { class: "card" }, head, passage(before, chunk, after), ...metadataLine(document));
  const mark = (sentence) => chunk.replaceChildren(...highlightSentence(text, sentence, stems));
  mark();
  return { item, mark };
}

/** The text of a document before and after a chunk, whose offsets count code points. */
function surroundingText(text, start, end) {
  if (start == null) return ["", ""];
  const characters = [...text];
  return [characters.slice(0, start).join(""), characters.slice(end).join("")];
}

/** A chunk with the text around it, and a button for the whole document where that is longer. */
function passage(before, chunk, after) {
  const [head, tail] = [element("span", { class: "context" }), element("span", { class: "context" })];
  const text = element("p", { class: "passage" }, head, chunk, tail);
  const show = (isExpanded) => {
    head.textContent = isExpanded || before.length <= CONTEXT_CHARS ? before : `… ${before.slice(-CONTEXT_CHARS)}`;
    tail.textContent = isExpanded || after.length <= CONTEXT_CHARS ? after : `${after.slice(0, CONTEXT_CHARS)} …`;
  };
  show(false);
  if (before.length <= CONTEXT_CHARS && after.length <= CONTEXT_CHARS) return text;
  const button = element("button", { type: "button", class: "link-button", "aria-expanded": "false" }, "Whole document");
  on(button, "click", () => {
    const isExpanded = button.getAttribute("aria-expanded") === "false";
    button.setAttribute("aria-expanded", isExpanded);
    show(isExpanded);
  });
  return element("div", {}, text, button);
}

function metadataLine({ metadata }) {
  const format = (value) => (typeof value === "string" ? value : JSON.stringify(value));
  const fields = Object.entries(metadata ?? {}).map(([name, value]) => `${name}: ${format(value)}`);
  return fields.length ? [element("p", { class: "hint" }, fields.join(" · "))] : [];
}

async function addFiles(list) {
  invalidateIndex();
  await buildAction.run(async () => {
    const errors = [];
    for (const file of list) {
      const add = (documents) => files.push({ name: file.name, documents });
      await parseFile(file).then(add, (error) => errors.push(error.message));
    }
    if (errors.length) throw new Error(errors.join(" "));
  });
  showFiles();
}

function showFiles() {
  const items = files.map((file) => {
    const remove = element("button", { type: "button", class: "link-button", "aria-label": `Remove ${file.name}` }, "Remove");
    on(remove, "click", () => {
      files.splice(files.indexOf(file), 1);
      invalidateIndex();
      showFiles();
    });
    return element("li", { class: "row between" }, `${file.name}: ${pluralize(file.documents.length, "document")}`, remove);
  });
  $("file-list").replaceChildren(...items);
}

/** Discards the index because the documents or the chunk size have changed. */
function invalidateIndex() {
  if (pageIndex) buildAction.showMessage("The documents have changed: the next search rebuilds the index.");
  pageIndex = null;
  buildAction.abort();
}

function acceptDrops(target) {
  const showDragging = (isDragging) => target.classList.toggle("dragging", isDragging);
  on(target, "dragover", (event) => {
    event.preventDefault();
    showDragging(true);
  });
  on(target, "dragleave", () => showDragging(false));
  on(target, "drop", (event) => {
    event.preventDefault();
    showDragging(false);
    addFiles(event.dataTransfer.files);
  });
}

/** Shows the fields of the selected index. */
function showSource() {
  $("build-form").hidden = usesServerIndex();
  $("mode-field").hidden = !usesServerIndex();
  $("results").replaceChildren();
  searchAction.showMessage("");
}

function startSearch() {
  on($("build-form"), "submit", (event) => {
    event.preventDefault();
    searchAction.abort();
    buildAction.run(buildIndex);
  });
  on($("search-form"), "submit", (event) => {
    event.preventDefault();
    buildAction.abort();
    searchAction.run(runSearch);
  });
  for (const id of ["documents", "chunk-tokens", "chunk-overlap"]) on($(id), "input", invalidateIndex);
  on($("files"), "change", async (event) => {
    await addFiles([...event.target.files]);
    event.target.value = "";
  });
  acceptDrops($("build-form"));
  on($("search-source"), "change", showSource);
}

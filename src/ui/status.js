// The Status tab, and what the other tabs need to know about the server: its models, limits and index.

const statusAction = new Action("status-message");
const MODEL_KINDS = { embedding: "Embeddings", speech: "Speech-to-text", text: "Text generation" };
// The last response of GET /status; null until it arrives.
let serverStatus = null;

const modelsOfKind = (kind) => (serverStatus?.models ?? []).filter((model) => model.kind === kind);

const defaultModel = (kind) => (modelsOfKind(kind).find((model) => model.default) ?? modelsOfKind(kind)[0])?.name ?? "all-MiniLM-L6-v2";

async function loadStatus(signal) {
  serverStatus = await (await request("status", { signal })).json();
  statusAction.showMessage("");
  $("key-form").hidden = true;
  $("key-change").hidden = !sessionStorage.getItem(KEY_STORAGE);
  showStatus();
  updateTabs();
}

/** Adapts all tabs to the models, limits and index of the server. */
function updateTabs() {
  for (const select of document.querySelectorAll("select[data-kind]")) fillModels(select);
  for (const hint of document.querySelectorAll("[data-missing]")) hint.hidden = modelsOfKind(hint.dataset.missing).length > 0;
  for (const fieldset of document.querySelectorAll("[data-needs]")) fieldset.disabled = !modelsOfKind(fieldset.dataset.needs).length;
  const embeddingModel = modelsOfKind("embedding").find((model) => model.default);
  if (embeddingModel?.dimension) $("embed-dimensions").max = embeddingModel.dimension;
  if (embeddingModel?.max_tokens) $("chunk-tokens").max = embeddingModel.max_tokens - SPECIAL_TOKENS;
  $("transcript-search-form").parentElement.hidden = !modelsOfKind("embedding").length;
  showServerIndex();
  showSnippet();
}

/** Lists the models of a kind; the field is hidden unless there is a choice. */
function fillModels(select) {
  const list = modelsOfKind(select.dataset.kind);
  select.parentElement.hidden = list.length < 2;
  const previous = select.value;
  // Requests do not name the default model.
  const value = (model) => (model.default ? "" : model.name);
  select.replaceChildren(...list.map((model) => element("option", { value: value(model) }, model.name)));
  // If the default model is not installed, requests name the first one.
  const first = list.find((model) => model.default) ?? list[0];
  const selected = list.find((model) => value(model) === previous) ?? first;
  if (selected) select.value = value(selected);
}

/** The name of the index; the number of rows is known once the index has been opened. `documents` counts rows: a long document has several. */
const indexLabel = ({ name, documents }) => (documents == null ? name : `${name} (${pluralize(documents, "row")})`);

function showServerIndex() {
  const { index } = serverStatus;
  if (Boolean(index) !== $("search-source").hidden) return;
  $("search-source").hidden = !index;
  document.querySelector(`[name="search-source"][value="${index ? "server-index" : "page-index"}"]`).checked = true;
  if (index) $("server-index").textContent = indexLabel(index);
  showSource();
}

function showStatus() {
  const { version, isa, isas, threads, uptime_s, memory_bytes, index, requests } = serverStatus;
  $("status").hidden = false;
  $("status-process").replaceChildren(
    metric("Version", version),
    metric("Instruction set", isa),
    metric("Also available", isas?.filter((other) => other !== isa).join(", ") || null),
    metric("Threads", threads),
    metric("Memory", memory_bytes && formatBytes(memory_bytes)),
    metric("Uptime", uptime_s == null ? null : formatUptime(uptime_s)),
    metric("Index", index ? indexLabel(index) : "none"),
  );
  $("status-models").replaceChildren(...serverStatus.models.map(modelTile));
  $("status-requests").replaceChildren(...requestMetrics(requests ?? {}));
}

function requestMetrics({ count, failures, tokens, completion_tokens, audio_s, inference_ms_mean }) {
  const format = (value) => value?.toLocaleString("en");
  return [
    metric("Requests", format(count)),
    metric("Failed requests", format(failures)),
    metric("Prompt tokens", format(tokens)),
    metric("Completion tokens", format(completion_tokens)),
    metric("Audio transcribed", audio_s == null ? null : `${audio_s.toFixed(1)} s`),
    metric("Mean inference time", inference_ms_mean == null ? null : formatMilliseconds(inference_ms_mean)),
  ];
}

function modelTile({ name, kind, default: isDefault, loaded, bytes, license, load_ms, dimension, max_tokens }) {
  const pill = element("span", { class: loaded ? "pill on" : "pill" }, loaded ? "loaded" : "not loaded yet");
  const metrics = [
    metric("Size", bytes && formatBytes(bytes)),
    metric("License", license),
    metric("Load time", load_ms == null ? null : formatMilliseconds(load_ms)),
    ...(dimension ? [metric("Dimensions", dimension)] : []),
    ...(max_tokens ? [metric("Max tokens", max_tokens.toLocaleString("en"))] : []),
  ];
  const kindLabel = `${MODEL_KINDS[kind] ?? kind}${isDefault ? " · default" : ""}`;
  const head = element("div", { class: "head between" }, element("strong", {}, name), pill);
  return element("li", { class: "card" }, head, element("p", { class: "hint" }, kindLabel), element("dl", { class: "metrics" }, ...metrics));
}

function formatUptime(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

const refreshStatus = () => statusAction.run(loadStatus);

function startStatus() {
  on($("status-refresh"), "click", refreshStatus);
  for (const link of document.querySelectorAll("[data-route]")) link.href = new URL(link.dataset.route, BASE_URL);
  on($("key-form"), "submit", (event) => {
    event.preventDefault();
    const key = $("key").value.trim();
    if (/[^\x21-\x7e]/.test(key)) return showKeyMessage("An API key contains only ASCII characters and no spaces.", true);
    sessionStorage.setItem(KEY_STORAGE, key);
    refreshStatus();
  });
  on($("key-change"), "click", () => {
    sessionStorage.removeItem(KEY_STORAGE);
    $("key").value = "";
    askForKey();
  });
}

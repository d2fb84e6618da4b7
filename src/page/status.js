// The tab Status, and what the other tabs have to know of the function: its models, limits and index.

const asking = new Action("status-note");
const KINDS = { embedding: "Vectors", speech: "Speech", text: "Text" };
let state = null;

const models = (kind) => (state?.models ?? []).filter((model) => model.kind === kind);

const defaultModel = (kind) => (models(kind).find((model) => model.default) ?? models(kind)[0])?.name ?? "default";

async function loadStatus(signal) {
  state = await (await request("status", { signal })).json();
  asking.say("");
  $("key-form").hidden = true;
  $("key-change").hidden = !sessionStorage.getItem(KEY);
  showStatus();
  fitTabs();
}

/** Makes the tabs fit what the function has. */
function fitTabs() {
  for (const select of document.querySelectorAll("select[data-kind]")) fillModels(select);
  for (const note of document.querySelectorAll("[data-missing]")) note.hidden = models(note.dataset.missing).length > 0;
  for (const fields of document.querySelectorAll("[data-needs]")) fields.disabled = !models(fields.dataset.needs).length;
  const [first] = models("embedding").filter((model) => model.default);
  if (first?.dimension) $("embed-dimensions").max = first.dimension;
  if (first?.max_tokens) $("chunk-tokens").max = first.max_tokens;
  $("said-form").parentElement.hidden = !models("embedding").length;
  showIndex();
  showCode();
}

/** The models of a kind; where there is one, nobody has to choose. */
function fillModels(select) {
  const list = models(select.dataset.kind);
  select.parentElement.hidden = list.length < 2;
  const before = select.value;
  const value = (model) => (model.default ? "" : model.name);
  select.replaceChildren(...list.map((model) => element("option", { value: value(model) }, model.name)));
  // Where the one that requests need not name is missing, they name the first.
  const first = list.find((model) => model.default) ?? list[0];
  const chosen = list.find((model) => value(model) === before) ?? first;
  if (chosen) select.value = value(chosen);
}

/** An index with its size, once it is open. */
const sized = ({ name, documents }) => (documents == null ? name : `${name} (${count(documents, "document")})`);

function showIndex() {
  const { index } = state;
  if (Boolean(index) !== $("source").hidden) return;
  $("source").hidden = !index;
  document.querySelector(`[name="source"][value="${index ? "own" : "session"}"]`).checked = true;
  if (index) $("source-own").textContent = sized(index);
  showSource();
}

function showStatus() {
  const { version, isa, isas, threads, uptime_s, memory_bytes, index, requests } = state;
  $("status").hidden = false;
  $("status-process").replaceChildren(
    figure("Version", version),
    figure("Instruction set", isa),
    figure("Others here", isas?.filter((other) => other !== isa).join(", ") || null),
    figure("Threads", threads),
    figure("Memory", memory_bytes && inBytes(memory_bytes)),
    figure("Running for", uptime_s == null ? null : inWords(uptime_s)),
    figure("Index", index ? sized(index) : "none"),
  );
  $("status-models").replaceChildren(...state.models.map(modelTile));
  $("status-requests").replaceChildren(...requestFigures(requests ?? {}));
}

function requestFigures({ count: all, failures, tokens, written_tokens, audio_s, inference_ms_mean }) {
  const number = (value) => value?.toLocaleString("en");
  return [
    figure("Requests", number(all)),
    figure("Refused or failed", number(failures)),
    figure("Tokens read", number(tokens)),
    figure("Tokens written", number(written_tokens)),
    figure("Speech heard", audio_s == null ? null : `${audio_s.toFixed(1)} s`),
    figure("Mean inference", inference_ms_mean == null ? null : inTime(inference_ms_mean)),
  ];
}

function modelTile({ name, kind, default: isDefault, loaded, bytes, license, load_ms, dimension, max_tokens }) {
  const pill = element("span", { class: loaded ? "pill on" : "pill" }, loaded ? "loaded" : "not loaded yet");
  const figures = [
    figure("Size", bytes && inBytes(bytes)),
    figure("Licence", license),
    figure("Loaded in", load_ms == null ? null : inTime(load_ms)),
    ...(dimension ? [figure("Dimensions", dimension)] : []),
    ...(max_tokens ? [figure("Tokens at most", max_tokens.toLocaleString("en"))] : []),
  ];
  const kindName = `${KINDS[kind] ?? kind}${isDefault ? " · where a request names none" : ""}`;
  const head = element("div", { class: "head between" }, element("strong", {}, name), pill);
  return element("li", { class: "card" }, head, element("p", { class: "hint" }, kindName), element("dl", { class: "figures" }, ...figures));
}

function inWords(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

const refresh = () => asking.run(loadStatus);

function startStatus() {
  on($("status-refresh"), "click", refresh);
  for (const link of document.querySelectorAll("[data-route]")) link.href = new URL(link.dataset.route, BASE);
  on($("key-form"), "submit", (event) => {
    event.preventDefault();
    const key = $("key").value.trim();
    if (/[^\x21-\x7e]/.test(key)) return sayOfKey("A key has neither spaces nor letters beyond ASCII.", true);
    sessionStorage.setItem(KEY, key);
    refresh();
  });
  on($("key-change"), "click", () => {
    sessionStorage.removeItem(KEY);
    $("key").value = "";
    askForKey();
  });
}

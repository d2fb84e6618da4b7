// Requests to the function that served this page.

// It may stand below a path: a stage of API Gateway, or the emulator's name of a function.
const BASE = new URL(location.pathname.replace(/\/?$/, "/"), location.origin);
const KEY = "tealight-key";
// Texts of one request; the route takes more, but each reply has to fit into what Lambda sends at once.
const TEXTS = 256;

const ADVICE = {
  401: "This function asks for an API key.",
  403: "The function refused. If its URL takes only requests signed with IAM, a browser cannot call it.",
  413: "This is larger than the function takes.",
  429: "The function is busy. Try again in a moment.",
  503: "The function is busy. Try again in a moment.",
  504: "The function ran out of time.",
};

class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

const authorization = () => {
  const key = sessionStorage.getItem(KEY);
  return key ? { authorization: `Bearer ${key}` } : {};
};

/** The reply of a route. An object is sent as JSON, a form as a form, nothing as GET. */
async function request(path, { body, signal } = {}) {
  const isForm = body instanceof FormData;
  const headers = { ...authorization(), ...(body && !isForm && { "content-type": "application/json" }) };
  const options = { method: body ? "POST" : "GET", headers, signal, cache: "no-store", body: isForm ? body : JSON.stringify(body) };
  const response = await fetch(new URL(path, BASE), options).catch(lost);
  if (!response.ok) throw await refusal(response);
  return response;
}

/** Why a request was refused: OpenAI's errors have a message in them, text-embeddings-inference's are texts, AWS has its own. */
async function refusal(response) {
  const { status } = response;
  const { error, message, Message } = await response.json().catch(() => ({}));
  const said = error?.message ?? error ?? message ?? Message;
  // Those of a key and of IAM are written for programs.
  const text = status === 401 || status === 403 ? ADVICE[status] : said || ADVICE[status];
  return new ApiError(text ?? `The function answered with status ${status}.`, status);
}

/** What became of a connection. */
function lost(error) {
  throw error.name === "AbortError" ? error : new ApiError("The function cannot be reached, or the connection broke off.", 0);
}

const post = (path, body, signal) => request(path, { body, signal });

/** Server-sent events as they come, or all at once from a front door that keeps them to the end. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value = "", done } = await reader.read().catch(lost);
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const data = block.replace(/^data: /, "");
      if (data === "[DONE]") return;
      const event = JSON.parse(data);
      if (event.error) throw new ApiError(event.error.message ?? "The function failed.", 500);
      yield event;
      if (event.type === "transcript.text.done") return;
    }
    if (done) throw new ApiError("The reply broke off before its end.", 0);
  }
}

/** A vector from base64 of little-endian float32: a third of the bytes of decimals. */
const decode = (text) => new Float32Array(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);

/** Vectors of texts, by requests of so many. */
async function embed(texts, signal, options = {}) {
  const vectors = [];
  for (let at = 0; at < texts.length; at += TEXTS) {
    const body = { input: texts.slice(at, at + TEXTS), encoding_format: "base64", truncate: true, ...options };
    const { data } = await (await post("v1/embeddings", body, signal)).json();
    vectors.push(...data.map((row) => decode(row.embedding)));
  }
  return vectors;
}

/** Shows the field for the key. */
function askForKey() {
  const isWrong = sessionStorage.getItem(KEY);
  $("key-form").hidden = false;
  sayOfKey(isWrong ? "The function refused this key." : "It stays in this tab, and goes when you close it.", Boolean(isWrong));
  $("key").focus();
}

function sayOfKey(text, isError) {
  $("key-note").classList.toggle("error", isError);
  $("key-note").textContent = text;
}

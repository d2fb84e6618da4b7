// Requests to the server that served this page: the Lambda function or `tealight serve`.

// The page may be served below a path: an API Gateway stage, or a function name in the Lambda emulator.
const BASE_URL = new URL(location.pathname.replace(/\/?$/, "/"), location.origin);
const KEY_STORAGE = "tealight-key";
// Texts per embedding request. The route accepts more, but each response must stay below Lambda's limit of 6 MiB.
const MAX_BATCH_TEXTS = 256;

const STATUS_MESSAGES = {
  401: "This server requires an API key.",
  403: "Access denied. A browser cannot call a function URL that requires requests signed with IAM credentials.",
  413: "The request is larger than the server accepts.",
  429: "The server is busy. Try again in a moment.",
  503: "The server is busy. Try again in a moment.",
  504: "The server timed out.",
};

class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

const authorization = () => {
  const key = sessionStorage.getItem(KEY_STORAGE);
  return key ? { authorization: `Bearer ${key}` } : {};
};

/** Sends a request: GET without a body, otherwise POST, as a multipart form if the body is FormData and as JSON if not. */
async function request(path, { body, signal } = {}) {
  const isForm = body instanceof FormData;
  const headers = { ...authorization(), ...(body && !isForm && { "content-type": "application/json" }) };
  const options = { method: body ? "POST" : "GET", headers, signal, cache: "no-store", body: isForm ? body : JSON.stringify(body) };
  const response = await fetch(new URL(path, BASE_URL), options).catch(throwNetworkError);
  if (!response.ok) throw await responseError(response);
  return response;
}

/** The error of a failed response. OpenAI's errors are objects, text-embeddings-inference's are strings, AWS uses `message` or `Message`. */
async function responseError(response) {
  const { status } = response;
  const { error, message, Message } = await response.json().catch(() => ({}));
  const bodyMessage = error?.message ?? error ?? message ?? Message;
  // The bodies of 401 and 403 address developers, not users of this page.
  const text = status === 401 || status === 403 ? STATUS_MESSAGES[status] : bodyMessage || STATUS_MESSAGES[status];
  return new ApiError(text ?? `The server returned status ${status}.`, status);
}

/** Rethrows an AbortError; replaces any other error of `fetch` with a readable one. */
function throwNetworkError(error) {
  throw error.name === "AbortError" ? error : new ApiError("The server cannot be reached, or the connection was lost.", 0);
}

const post = (path, body, signal) => request(path, { body, signal });

/** Yields server-sent events as they arrive, or all at once where a proxy buffers the response. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { value = "", done } = await reader.read().catch(throwNetworkError);
    const blocks = (buffer + value).split("\n\n");
    buffer = blocks.pop();
    for (const block of blocks) {
      const data = block.replace(/^data: /, "");
      if (data === "[DONE]") return;
      const event = JSON.parse(data);
      if (event.error) throw new ApiError(event.error.message ?? "The server failed.", 500);
      yield event;
      if (event.type === "transcript.text.done") return;
    }
    if (done) throw new ApiError("The response was cut off.", 0);
  }
}

/** Decodes an embedding from base64 of little-endian float32, a third of the size of decimal numbers. */
const decodeEmbedding = (base64) => new Float32Array(Uint8Array.from(atob(base64), (c) => c.charCodeAt(0)).buffer);

/** Embeds texts in batches. Resolves to one Float32Array per text. */
async function embed(texts, signal, options = {}) {
  const vectors = [];
  for (let start = 0; start < texts.length; start += MAX_BATCH_TEXTS) {
    const body = { input: texts.slice(start, start + MAX_BATCH_TEXTS), encoding_format: "base64", truncate: true, ...options };
    const { data } = await (await post("v1/embeddings", body, signal)).json();
    vectors.push(...data.map((item) => decodeEmbedding(item.embedding)));
  }
  return vectors;
}

/** Shows the form for the API key. */
function askForKey() {
  const isRejected = sessionStorage.getItem(KEY_STORAGE);
  $("key-form").hidden = false;
  showKeyMessage(isRejected ? "This API key was rejected." : "The key is stored only in this tab, until you close it.", Boolean(isRejected));
  $("key").focus();
}

function showKeyMessage(text, isError) {
  $("key-message").classList.toggle("error", isError);
  $("key-message").textContent = text;
}

// The Generate tab: completion of a prompt, or chat.

const generateAction = new Action("generate-message", { stop: "generate-stop" });
// The conversation, as the chat API expects it.
const messages = [];

const isChat = () => radioValue("generation-type") === "chat";

function generationOptions() {
  const [model, seed] = [$("generate-model").value, $("seed").valueAsNumber];
  return {
    ...(model && { model }),
    temperature: $("temperature").valueAsNumber,
    top_p: $("top-p").valueAsNumber,
    max_tokens: $("max-tokens").valueAsNumber,
    ...(Number.isFinite(seed) && { seed }),
    stream: true,
    stream_options: { include_usage: true },
  };
}

/** Streams generated text to `onText`. Resolves to the finish reason. */
async function streamText(path, body, onText, signal) {
  const timing = { start: performance.now(), tokens: 0 };
  let finishReason;
  for await (const { choices, usage } of events(await post(path, { ...body, ...generationOptions() }, signal))) {
    const [choice] = choices;
    finishReason = choice?.finish_reason ?? finishReason;
    const text = choice?.text ?? choice?.delta?.content;
    if (text) {
      onText(text);
      onToken(timing);
    }
    // A delta may contain several tokens; the usage of the last event is exact.
    if (usage) timing.tokens = usage.completion_tokens;
    showTiming(timing);
  }
  return finishReason;
}

function onToken(timing) {
  timing.last = performance.now();
  timing.first ??= timing.last;
  timing.tokens++;
}

function showTiming({ start, first, last, tokens }) {
  if (!tokens) return;
  // If a proxy buffers the response, all tokens arrive at once and the time to the first is unknown.
  const isStreamed = last - first > 20;
  const tokensPerMs = isStreamed ? (tokens - 1) / (last - first) : tokens / (last - start);
  $("generation-metrics").hidden = false;
  $("tokens-per-second").textContent = (1000 * tokensPerMs).toFixed(1);
  $("time-to-first-token").textContent = isStreamed || tokens === 1 ? formatMilliseconds(first - start) : "–";
  $("token-count").textContent = tokens.toLocaleString("en");
}

async function completePrompt(signal) {
  const prompt = $("prompt").value;
  if (!prompt.trim()) throw new Error("The prompt is empty.");
  const text = element("span");
  $("completion-text").replaceChildren(element("span", { class: "prompt" }, prompt), text);
  $("completion-text").hidden = false;
  return streamText("v1/completions", { prompt }, (delta) => appendText(text, delta, $("completion-text")), signal);
}

async function sendChatMessage(signal) {
  const content = $("chat-message").value.trim();
  if (!content) throw new Error("The message is empty.");
  addMessage("user", content);
  $("chat-message").value = "";
  // An assistant message that was stopped before its first token is not part of the conversation.
  const sentMessages = messages.filter((message) => message.content);
  const assistant = addMessage("assistant", "");
  const onText = (delta) => {
    assistant.message.content += delta;
    appendText(assistant.item, delta, assistant.item);
  };
  try {
    return await streamText("v1/chat/completions", { messages: sentMessages }, onText, signal);
  } finally {
    if (!assistant.message.content) rollback(assistant, content);
  }
}

function addMessage(role, content) {
  const message = { role, content };
  messages.push(message);
  const speaker = element("span", { class: "visually-hidden" }, role === "user" ? "You: " : "Assistant: ");
  const item = element("li", { class: role }, speaker, content);
  $("chat-log").append(item);
  $("chat-clear").hidden = false;
  return { message, item };
}

/** Removes an empty assistant message and the user's message before it, which goes back into the text field. */
function rollback(assistant, content) {
  if (messages.at(-1) !== assistant.message) return;
  messages.splice(-2);
  assistant.item.previousSibling.remove();
  assistant.item.remove();
  $("chat-message").value ||= content;
}

/** Appends text; keeps the end in view if it was in view before. */
function appendText(target, text, scroller) {
  const isAtEnd = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 40;
  target.append(text);
  if (isAtEnd) scroller.scrollTop = scroller.scrollHeight;
}

async function generate(signal) {
  generateAction.showMessage("Generating…");
  $("generation-metrics").hidden = true;
  const log = isChat() ? $("chat-log") : $("completion-text");
  // Screen readers wait for the whole text.
  log.setAttribute("aria-busy", "true");
  try {
    const finishReason = await (isChat() ? sendChatMessage : completePrompt)(signal);
    generateAction.showMessage(finishReason === "length" ? "Stopped at the token or time limit." : "Done.");
  } finally {
    log.setAttribute("aria-busy", "false");
  }
}

function clearChat() {
  generateAction.abort();
  messages.length = 0;
  $("chat-log").replaceChildren();
  $("chat-clear").hidden = true;
  $("chat-message").focus();
}

function showGenerationType() {
  $("completion").hidden = isChat();
  $("chat").hidden = !isChat();
  $("chat-clear").hidden = !isChat() || !messages.length;
  $("generate-form").querySelector(".primary").textContent = isChat() ? "Send" : "Generate";
}

/** Shows the value of a slider next to its label. */
function showRangeValue(input) {
  document.querySelector(`output[for="${input.id}"]`).textContent = input.valueAsNumber.toFixed(2);
}

function startGenerate() {
  const form = $("generate-form");
  on(form, "submit", (event) => {
    event.preventDefault();
    generateAction.run(generate);
  });
  on($("chat-message"), "keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit();
  });
  for (const radio of form.querySelectorAll('[name="generation-type"]')) on(radio, "change", showGenerationType);
  for (const range of form.querySelectorAll('[type="range"]')) {
    on(range, "input", () => showRangeValue(range));
    showRangeValue(range);
  }
  on($("chat-clear"), "click", clearChat);
}

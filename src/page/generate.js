// The tab Write: a story that goes on, or a conversation.

const writing = new Action("write-note", { stop: "write-stop" });
const messages = [];

const isChat = () => checked("form") === "chat";

function sampling() {
  const [model, seed] = [$("write-model").value, $("seed").valueAsNumber];
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

/** Writes a text piece by piece; returns why it ended. */
async function generate(path, body, onText, signal) {
  const times = { start: performance.now(), tokens: 0 };
  let finish;
  for await (const { choices, usage } of events(await post(path, { ...body, ...sampling() }, signal))) {
    const [choice] = choices;
    finish = choice?.finish_reason ?? finish;
    const text = choice?.text ?? choice?.delta?.content;
    if (text) {
      onText(text);
      tick(times);
    }
    // A piece may be of several tokens; the last event knows.
    if (usage) times.tokens = usage.completion_tokens;
    showRates(times);
  }
  return finish;
}

function tick(times) {
  times.last = performance.now();
  times.first ??= times.last;
  times.tokens++;
}

function showRates({ start, first, last, tokens }) {
  if (!tokens) return;
  // A front door that keeps all to the end hides when the first token came.
  const isStream = last - first > 20;
  const rate = isStream ? (tokens - 1) / (last - first) : tokens / (last - start);
  $("rates").hidden = false;
  $("rate").textContent = (1000 * rate).toFixed(1);
  $("first-token").textContent = isStream || tokens === 1 ? inTime(first - start) : "–";
  $("token-count").textContent = tokens.toLocaleString("en");
}

async function writeStory(signal) {
  const prompt = $("story-prompt").value;
  if (!prompt.trim()) throw new Error("A story needs a beginning.");
  const text = element("span");
  $("story-text").replaceChildren(element("span", { class: "prompt" }, prompt), text);
  $("story-text").hidden = false;
  return generate("v1/completions", { prompt }, (more) => grow(text, more, $("story-text")), signal);
}

async function answer(signal) {
  const content = $("chat-message").value.trim();
  if (!content) throw new Error("The message is empty.");
  say("user", content);
  $("chat-message").value = "";
  // An answer that was stopped before its first word is none.
  const asked = messages.filter((message) => message.content);
  const reply = say("assistant", "");
  const onText = (more) => {
    reply.message.content += more;
    grow(reply.item, more, reply.item);
  };
  try {
    return await generate("v1/chat/completions", { messages: asked }, onText, signal);
  } finally {
    if (!reply.message.content) takeBack(reply, content);
  }
}

/** Puts a message into the conversation. */
function say(role, content) {
  const message = { role, content };
  messages.push(message);
  const item = element("li", { class: role }, element("span", { class: "hidden" }, role === "user" ? "You: " : "Answer: "), content);
  $("chat-log").append(item);
  $("chat-clear").hidden = false;
  return { message, item };
}

/** What got no answer can be sent again. */
function takeBack(reply, content) {
  if (messages.at(-1) !== reply.message) return;
  messages.splice(-2);
  reply.item.previousSibling.remove();
  reply.item.remove();
  $("chat-message").value ||= content;
}

/** Adds to a text, and keeps its end in sight where it was. */
function grow(target, more, scroller) {
  const isAtEnd = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 40;
  target.append(more);
  if (isAtEnd) scroller.scrollTop = scroller.scrollHeight;
}

async function write(signal) {
  writing.say("Writing…");
  $("rates").hidden = true;
  const log = isChat() ? $("chat-log") : $("story-text");
  // What reads a page aloud waits for the whole text.
  log.setAttribute("aria-busy", "true");
  try {
    const finish = await (isChat() ? answer : writeStory)(signal);
    writing.say(finish === "length" ? "Ended at the limit of tokens." : "Ended.");
  } finally {
    log.setAttribute("aria-busy", "false");
  }
}

function clearChat() {
  writing.abort();
  messages.length = 0;
  $("chat-log").replaceChildren();
  $("chat-clear").hidden = true;
  $("chat-message").focus();
}

function showForm() {
  $("story").hidden = isChat();
  $("chat").hidden = !isChat();
  $("chat-clear").hidden = !isChat() || !messages.length;
  $("write-form").querySelector(".primary").textContent = isChat() ? "Send" : "Write";
}

function showRange(input) {
  document.querySelector(`output[for="${input.id}"]`).textContent = input.valueAsNumber.toFixed(2);
}

function startWrite() {
  const form = $("write-form");
  on(form, "submit", (event) => {
    event.preventDefault();
    writing.run(write);
  });
  on($("chat-message"), "keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit();
  });
  for (const radio of form.querySelectorAll('[name="form"]')) on(radio, "change", showForm);
  for (const range of form.querySelectorAll('[type="range"]')) {
    on(range, "input", () => showRange(range));
    showRange(range);
  }
  on($("chat-clear"), "click", clearChat);
}

// Elements of the page. Nothing is ever parsed as HTML: data become text nodes and attributes.

const $ = (id) => document.getElementById(id);

const attach = (node, attributes, children) => {
  for (const [name, value] of Object.entries(attributes)) {
    if (value != null) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
};

const element = (name, attributes = {}, ...children) => attach(document.createElement(name), attributes, children);

const svg = (name, attributes = {}, ...children) =>
  attach(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);

const checked = (name) => document.querySelector(`input[name="${name}"]:checked`).value;

const on = (target, type, listener) => target.addEventListener(type, listener);

/** A row of a list of figures; what is not known is a dash. */
const figure = (name, value) => element("div", {}, element("dt", {}, name), element("dd", {}, value ?? "–"));

const count = (number, one, many = `${one}s`) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;

const inBytes = (bytes) => {
  const [size, unit] = bytes < 1e6 ? [bytes / 1e3, "kB"] : bytes < 1e9 ? [bytes / 1e6, "MB"] : [bytes / 1e9, "GB"];
  return `${size.toFixed(size < 10 ? 1 : 0)} ${unit}`;
};

const inTime = (ms) => (ms < 10 ? `${ms.toFixed(1)} ms` : ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`);

const save = (name, text, type) => {
  const url = URL.createObjectURL(new Blob([text], { type }));
  element("a", { href: url, download: name }).click();
  // The browser has to have begun to read it.
  setTimeout(() => URL.revokeObjectURL(url), 1000);
};

/** Something that can be started: it ends what it was doing when it starts again, and tells how it went beside its button. */
class Action {
  constructor(note, { stop, progress } = {}) {
    this.note = $(note);
    this.stop = stop && $(stop);
    this.progress = progress && $(progress);
    if (this.stop) on(this.stop, "click", () => this.abort());
  }

  say(text, isError = false) {
    this.note.textContent = text;
    this.note.classList.toggle("error", isError);
  }

  abort() {
    this.controller?.abort();
  }

  /** Whether `work` came to its end. */
  async run(work) {
    this.abort();
    const controller = (this.controller = new AbortController());
    const isCurrent = () => controller === this.controller;
    this.show(true);
    try {
      await work(controller.signal);
      return isCurrent();
    } catch (error) {
      if (isCurrent()) this.fail(error);
      return false;
    } finally {
      if (isCurrent()) this.show(false);
    }
  }

  /** Shows whether it is at work. */
  show(isBusy) {
    if (this.stop) this.stop.disabled = !isBusy;
    if (!this.progress) return;
    // Without a value it says that something happens, not how far it is.
    this.progress.removeAttribute("value");
    this.progress.hidden = !isBusy;
  }

  fail(error) {
    if (error.name === "AbortError") return this.say("Stopped.");
    this.say(error.message, true);
    if (error.status === 401) askForKey();
  }
}

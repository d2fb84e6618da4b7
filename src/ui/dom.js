// DOM helpers. Data are only ever inserted as text nodes and attributes, never parsed as HTML.

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

/** The value of the selected radio button of a group. */
const radioValue = (name) => document.querySelector(`input[name="${name}"]:checked`).value;

const on = (target, type, listener, options) => target.addEventListener(type, listener, options);

/** An entry of a definition list; an unknown value is shown as a dash. */
const metric = (name, value) => element("div", {}, element("dt", {}, name), element("dd", {}, value ?? "–"));

const pluralize = (number, singular, plural = `${singular}s`) => `${number.toLocaleString("en")} ${number === 1 ? singular : plural}`;

const formatBytes = (bytes) => {
  const [size, unit] = bytes < 1e6 ? [bytes / 1e3, "kB"] : bytes < 1e9 ? [bytes / 1e6, "MB"] : [bytes / 1e9, "GB"];
  return `${size.toFixed(size < 10 ? 1 : 0)} ${unit}`;
};

const formatMilliseconds = (ms) => (ms < 10 ? `${ms.toFixed(1)} ms` : ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`);

const download = (filename, text, type) => {
  const url = URL.createObjectURL(new Blob([text], { type }));
  element("a", { href: url, download: filename }).click();
  // The browser starts reading the blob only after the click, so the URL must stay valid for a moment.
  setTimeout(() => URL.revokeObjectURL(url), 1000);
};

/** A cancellable operation. Starting it again aborts the previous run; its result or error is shown in a message element next to its button. */
class Action {
  constructor(messageId, { stop, progress } = {}) {
    this.messageElement = $(messageId);
    this.stop = stop && $(stop);
    this.progress = progress && $(progress);
    if (this.stop) on(this.stop, "click", () => this.abort());
  }

  showMessage(text, isError = false) {
    this.messageElement.textContent = text;
    this.messageElement.classList.toggle("error", isError);
  }

  abort() {
    this.controller?.abort();
  }

  /** Runs `work` with an AbortSignal. Resolves to true if it succeeded and was not replaced by a later run. */
  async run(work) {
    this.abort();
    const controller = (this.controller = new AbortController());
    const isCurrent = () => controller === this.controller;
    this.showBusy(true);
    try {
      await work(controller.signal);
      return isCurrent();
    } catch (error) {
      if (isCurrent()) this.fail(error);
      return false;
    } finally {
      if (isCurrent()) this.showBusy(false);
    }
  }

  showBusy(isBusy) {
    if (this.stop) this.stop.disabled = !isBusy;
    if (!this.progress) return;
    // Without a value the bar is indeterminate.
    this.progress.removeAttribute("value");
    this.progress.hidden = !isBusy;
  }

  fail(error) {
    if (error.name === "AbortError") return this.showMessage("Stopped.");
    this.showMessage(error.message, true);
    if (error.status === 401) askForKey();
  }
}

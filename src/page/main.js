// Tabs (https://www.w3.org/WAI/ARIA/apg/patterns/tabs/), each with an address of its own behind "#".

const tabs = [...document.querySelectorAll('[role="tab"]')];

const nameOf = (tab) => tab.id.replace("tab-", "");

function choose(tab) {
  for (const other of tabs) {
    const isChosen = other === tab;
    other.setAttribute("aria-selected", isChosen);
    other.tabIndex = isChosen ? 0 : -1;
    $(other.getAttribute("aria-controls")).hidden = !isChosen;
  }
  document.title = `tealight · ${tab.textContent}`;
  if (nameOf(tab) === "embed" && compared) showMap(compared);
  if (nameOf(tab) === "status" && state) refresh();
}

function chooseByHash() {
  choose(tabs.find((tab) => `#${nameOf(tab)}` === location.hash) ?? tabs[0]);
}

function moveTo(tab) {
  history.replaceState(null, "", `#${nameOf(tab)}`);
  choose(tab);
}

function onKey(event) {
  const at = tabs.indexOf(event.target);
  const next = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1 }[event.key];
  if (next == null) return;
  event.preventDefault();
  const tab = tabs[(next + tabs.length) % tabs.length];
  tab.focus();
  moveTo(tab);
}

for (const tab of tabs) {
  on(tab, "click", () => moveTo(tab));
  on(tab, "keydown", onKey);
}
on(window, "hashchange", chooseByHash);
startEmbed();
startSearch();
startSpeak();
startWrite();
startStatus();
chooseByHash();
showCode();
refresh();

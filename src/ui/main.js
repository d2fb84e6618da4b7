// src/api/ui.rs joins the files in this folder into one script; this one is the last.

// Tabs (https://www.w3.org/WAI/ARIA/apg/patterns/tabs/). The URL fragment names the selected tab.

const tabs = [...document.querySelectorAll('[role="tab"]')];

const tabName = (tab) => tab.id.replace("tab-", "");

function selectTab(tab) {
  for (const other of tabs) {
    const isSelected = other === tab;
    other.setAttribute("aria-selected", isSelected);
    other.tabIndex = isSelected ? 0 : -1;
    $(other.getAttribute("aria-controls")).hidden = !isSelected;
  }
  document.title = `tealight · ${tab.textContent}`;
  if (tabName(tab) === "embeddings" && compared) showMap(compared);
  if (tabName(tab) === "status" && serverStatus) refreshStatus();
}

function selectTabOfUrl() {
  selectTab(tabs.find((tab) => `#${tabName(tab)}` === location.hash) ?? tabs[0]);
}

function openTab(tab) {
  history.replaceState(null, "", `#${tabName(tab)}`);
  selectTab(tab);
}

function onTabKey(event) {
  const index = tabs.indexOf(event.target);
  const next = { ArrowRight: index + 1, ArrowLeft: index - 1, Home: 0, End: tabs.length - 1 }[event.key];
  if (next == null) return;
  event.preventDefault();
  const tab = tabs[(next + tabs.length) % tabs.length];
  tab.focus();
  openTab(tab);
}

for (const tab of tabs) {
  on(tab, "click", () => openTab(tab));
  on(tab, "keydown", onTabKey);
}
on(window, "hashchange", selectTabOfUrl);
startEmbeddings();
startSearch();
startTranscribe();
startGenerate();
startStatus();
selectTabOfUrl();
showSnippet();
refreshStatus();

// Tabs over the panels #panel0, #panel1, ... Value: the names of the panels.
const root = document.createElement("div");
root.className = "cinnema-tabs";
root.setAttribute("role", "tablist");
root.setAttribute("aria-label", "What to do with the picture");
element.replaceChildren(root);

const tabs = props.value.map((name, number) => {
  const tab = document.createElement("button");
  Object.assign(tab, { type: "button", textContent: name, id: `tab${number}` });
  tab.setAttribute("role", "tab");
  tab.setAttribute("aria-controls", `panel${number}`);
  tab.addEventListener("click", () => open(number));
  root.append(tab);
  return tab;
});

function open(number) {
  tabs.forEach((tab, index) => {
    tab.setAttribute("aria-selected", index === number);
    tab.tabIndex = index === number ? 0 : -1;
    const panel = document.getElementById(`panel${index}`);
    if (!panel) return;
    panel.setAttribute("role", "tabpanel");
    panel.setAttribute("aria-labelledby", `tab${index}`);
    panel.style.display = index === number ? "" : "none";
  });
}

root.addEventListener("keydown", (event) => {
  const way = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!way) return;
  const next = (tabs.indexOf(document.activeElement) + way + tabs.length) % tabs.length;
  open(next);
  tabs[next].focus();
  event.preventDefault();
});

// The panels are drawn after this one.
const wait = new MutationObserver(() => {
  if (tabs.every((_, index) => document.getElementById(`panel${index}`))) {
    wait.disconnect();
    open(0);
  }
});
wait.observe(document.body, { childList: true, subtree: true });
open(0);

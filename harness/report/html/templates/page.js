"use strict";
const root = document.documentElement;
const prefersDark = matchMedia("(prefers-color-scheme: dark)");
const paper = matchMedia("print");

// the reader's choice, and until there is one the system's; paper is light
function isDark() {
  if (paper.matches) return false;
  return root.dataset.theme ? root.dataset.theme === "dark" : prefersDark.matches;
}

document.getElementById("theme").addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  root.dispatchEvent(new Event("theme"));
});
prefersDark.addEventListener("change", () => root.dispatchEvent(new Event("theme")));

for (const button of document.querySelectorAll(".copy")) {
  const text = button.previousElementSibling;
  button.addEventListener("click", async () => {
    getSelection().selectAllChildren(text);
    try {
      await navigator.clipboard.writeText(text.textContent);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Selected: Ctrl+C";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
}

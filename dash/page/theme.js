// Runs before the page is drawn, so that it does not flash in the wrong colours. "auto" is the system's choice.
const kept = localStorage.getItem("dray-theme");
if (kept === "light" || kept === "dark") document.documentElement.dataset.theme = kept;

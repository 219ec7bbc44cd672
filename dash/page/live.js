// The stream of news, and what to do when it breaks.

// listen calls news with each event's data, and says "live", "waiting" or "lost" with why.
export function listen(news, says) {
  let source = null, wait = 1000, timer = 0, heard = 0;
  const open = () => {
    clearTimeout(timer);
    source?.close();
    source = new EventSource("/dash/api/events");
    source.addEventListener("state", e => {
      heard = Date.now();
      wait = 1000;
      says("live", "live");
      news(JSON.parse(e.data));
    });
    source.onopen = () => { heard = Date.now(); wait = 1000; says("live", "live"); };
    source.onerror = () => {
      source.close();
      why().then(text => says("lost", text));
      timer = setTimeout(open, wait);
      wait = Math.min(wait * 2, 10000);
    };
  };
  // A page that nobody sees asks for nothing.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      clearTimeout(timer);
      source?.close();
      says("waiting", "paused");
    } else open();
  });
  open();
}

// why asks what is wrong: an event source does not tell.
async function why() {
  try {
    const answer = await fetch("/dash/api/state", { cache: "no-store" });
    if (answer.status === 401) {
      location.reload(); // the daemon answers with the form that asks for its token
      return "your session has ended";
    }
    if (answer.status === 503) return (await answer.json()).error;
    return "reconnecting";
  } catch {
    return "no answer from the daemon, trying again";
  }
}

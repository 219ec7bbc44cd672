// The stream of news, and what to do when it breaks.

const silence = 25000; // the daemon gives a sign of life every ten seconds

// listen calls news with each event's data, and says "live", "waiting" or "lost" with why.
export function listen(news, says) {
  let source = null, wait = 1000, timer = 0, heard = 0;
  const alive = () => {
    heard = Date.now();
    wait = 1000;
    says("live", "live");
  };
  const open = () => {
    clearTimeout(timer);
    source?.close();
    heard = Date.now();
    source = new EventSource("/dash/api/events");
    source.addEventListener("state", e => {
      alive();
      news(JSON.parse(e.data));
    });
    source.addEventListener("beat", alive);
    source.onopen = alive;
    source.onerror = () => {
      if (source.readyState !== EventSource.CLOSED) {
        says("lost", "reconnecting"); // the browser does that, and says what it has seen already
        return;
      }
      why().then(text => says("lost", text));
      timer = setTimeout(open, wait);
      wait = Math.min(wait * 2, 10000);
    };
  };
  setInterval(() => {
    if (document.hidden || source?.readyState !== EventSource.OPEN || Date.now() - heard < silence) return;
    says("lost", "the daemon says nothing");
    open();
  }, 5000);
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
    return answer.ok ? "as many pages are open as may be; close one" : "reconnecting";
  } catch {
    return "no answer from the daemon, trying again";
  }
}

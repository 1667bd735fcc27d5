// Keeps the part of the page marked with data-follow up to date until it says data-finished.
(() => {
  const SOON = 1000;
  const LATER = 5000;
  const MINUTE = 60_000;
  const opened = Date.now();

  const follow = async (part, shown) => {
    let html = shown;
    if (!document.hidden) {
      try {
        const answer = await fetch(part.dataset.follow, { headers: { Accept: "text/html" } });
        if (!answer.ok) throw new Error(answer.statusText);
        html = await answer.text();
        part.classList.remove("stale");
      } catch {
        part.classList.add("stale"); // the server is away: what is shown may be old
      }
    }
    // Only what changed is replaced, so that a selection stays while nothing happens.
    if (html !== shown) {
      part.innerHTML = html;
      announce(part);
    }
    if (part.querySelector("[data-finished]")) return;
    setTimeout(follow, Date.now() - opened < MINUTE ? SOON : LATER, part, html);
  };

  // A screen reader hears the headline when it changes, not the whole part again.
  const announce = (part) => {
    const status = document.querySelector("[data-announce]");
    const headline = part.querySelector("h1")?.textContent;
    if (status && headline && status.textContent !== headline) status.textContent = headline;
  };

  for (const part of document.querySelectorAll("[data-follow]")) follow(part);
})();

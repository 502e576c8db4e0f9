// Keeps the page fresh: each part is replaced when the gateway sends it again.
"use strict";
(() => {
  const lost = document.getElementById("lost");
  const view = document.getElementById("main").dataset.view;
  const source = new EventSource("/events?view=" + encodeURIComponent(view));
  for (const part of document.querySelectorAll("[data-part]")) {
    source.addEventListener(part.dataset.part, (event) => {
      lost.hidden = true;
      // What is the same stays, so that nobody presses a button that is being replaced.
      const fresh = document.createElement("template");
      fresh.innerHTML = event.data;
      if (fresh.innerHTML === part.innerHTML) return;
      // What has the focus keeps it, and tables stay where they were scrolled to.
      const scrolled = [...part.querySelectorAll(".scroll")].map((one) => [one.id, one.scrollLeft]);
      const focused = part.contains(document.activeElement) ? document.activeElement.id : "";
      part.replaceChildren(fresh.content);
      for (const [id, left] of scrolled) document.getElementById(id)?.scrollTo({ left, behavior: "instant" });
      if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
    });
  }
  source.addEventListener("error", () => {
    lost.hidden = false;
    // A session that has ended, or a gateway that has started anew, wants a log-in.
    if (source.readyState === EventSource.CLOSED) setTimeout(() => location.assign(view), 5000);
  });
})();

// Keeps the page fresh: each part is replaced when the gateway sends it again.
"use strict";
(() => {
  const lost = document.getElementById("lost");
  const source = new EventSource("/events?view=console");
  for (const part of document.querySelectorAll("[data-part]")) {
    source.addEventListener(part.dataset.part, (event) => {
      lost.hidden = true;
      part.innerHTML = event.data;
    });
  }
  source.addEventListener("error", () => {
    lost.hidden = false;
    // A session that has ended, or a gateway that has started anew, wants a log-in.
    if (source.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), 5000);
  });
})();

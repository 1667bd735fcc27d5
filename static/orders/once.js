// A form that was sent is not sent again by a second click.
(() => {
  for (const form of document.querySelectorAll("form[data-submit-once]")) {
    const button = form.querySelector("button");
    form.addEventListener("submit", () => { button.disabled = true; });
    // Back from the order's page, the form is to be used again.
    addEventListener("pageshow", () => { button.disabled = false; });
  }
})();

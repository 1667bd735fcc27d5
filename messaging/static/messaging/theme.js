// The theme that was chosen here or in the admin, set before anything is drawn.
(() => {
  const THEMES = ["auto", "light", "dark"];
  const root = document.documentElement;

  const stored = () => {
    try {
      return localStorage.getItem("theme");
    } catch {
      return null; // storage is forbidden
    }
  };
  const use = (theme) => {
    root.dataset.theme = THEMES.includes(theme) ? theme : "auto";
  };

  use(stored());
  // Another tab, or the admin in it, chose another.
  addEventListener("storage", (event) => event.key === "theme" && use(event.newValue));

  document.addEventListener("DOMContentLoaded", () => {
    const button = document.querySelector("[data-theme-toggle]");
    if (!button) return;
    const say = () => {
      button.title = `Theme: ${root.dataset.theme}`;
      button.setAttribute("aria-label", button.title);
    };
    say();
    button.hidden = false;
    button.addEventListener("click", () => {
      use(THEMES[(THEMES.indexOf(root.dataset.theme) + 1) % THEMES.length]);
      say();
      try {
        localStorage.setItem("theme", root.dataset.theme);
      } catch {
        // The choice lasts as long as the page.
      }
    });
  });
})();

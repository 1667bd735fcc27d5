// The theme that was chosen here or in the admin, set before anything is drawn.
(() => {
  const modes = ["auto", "light", "dark"];
  const root = document.documentElement;
  const chosen = () => {
    try {
      return modes.includes(localStorage.getItem("theme")) ? localStorage.getItem("theme") : "auto";
    } catch {
      return "auto"; // storage is forbidden
    }
  };
  root.dataset.theme = chosen();
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.querySelector("[data-theme-toggle]");
    const show = () => {
      button.setAttribute("aria-label", `Theme: ${root.dataset.theme}`);
      button.title = `Theme: ${root.dataset.theme}`;
    };
    button.hidden = false;
    show();
    button.addEventListener("click", () => {
      root.dataset.theme = modes[(modes.indexOf(root.dataset.theme) + 1) % modes.length];
      show();
      try {
        localStorage.setItem("theme", root.dataset.theme);
      } catch {
        // storage is forbidden: the choice lasts as long as the page
      }
    });
  });
})();

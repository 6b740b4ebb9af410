// Dark or light as chosen before, else as the system has it. Runs before the first paint, hence no module.
"use strict";

{
  const KEY = "burdock-theme";
  const NEXT = { system: "dark", dark: "light", light: "system" };
  const root = document.documentElement;
  const chosen = () => localStorage.getItem(KEY) ?? "system";
  const wear = (theme) => (root.dataset.theme = theme);

  globalThis.nextTheme = () => {
    localStorage.setItem(KEY, NEXT[chosen()]);
    wear(chosen());
    return chosen();
  };
  wear(chosen());
}

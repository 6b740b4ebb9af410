// What the page asks: for the token, whether a change is meant, for a weight; and what it answers.

import { $, element, icon } from "./dom.js";
import { token } from "./api.js";

// Shows a dialog of `content`, whose form gives `value()` when it is sent, and null when it is left.
function ask({
  title,
  tone = "plain",
  content,
  confirm,
  leave = "Cancel",
  value,
  danger = false,
  focus,
}) {
  const sent = element("button", {
    type: "submit",
    className: danger ? "danger" : "primary",
    textContent: confirm ?? leave,
  });
  const left = element("button", { type: "button", textContent: leave });
  const form = element(
    "form",
    { method: "dialog" },
    element("h2", { id: "dialog-title", dir: "auto" }, ...title),
    element("div", { className: "content" }, ...content),
    element("footer", {}, ...(confirm ? [left, sent] : [sent])),
  );
  const dialog = element(
    "dialog",
    { className: "ask", data: { tone }, aria: { labelledby: "dialog-title" } },
    form,
  );
  document.body.append(dialog);
  return new Promise((done) => {
    let result = null;
    form.addEventListener("submit", () => (result = value ? value() : true));
    left.addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => (dialog.remove(), done(result)));
    dialog.showModal();
    (focus ?? (danger ? left : sent)).focus();
  });
}

const paragraph = (...children) => element("p", {}, ...children);

// Fulfilled once a token is kept. There is no way past it: without a token nothing can be shown.
export async function askToken(refused) {
  const field = element("input", {
    type: "password",
    required: true,
    autocomplete: "off",
    spellcheck: false,
    id: "token",
    pattern: "\\s*[!-~]+\\s*",
    title: "visible ASCII characters, without spaces",
  });
  const kept = await ask({
    title: ["Token of the admin API"],
    confirm: "Continue",
    leave: "Not now",
    focus: field,
    content: [
      refused &&
        element(
          "p",
          { className: "refused", role: "alert" },
          icon("dead"),
          "That token was refused.",
        ),
      paragraph(
        "This Burdock shows and changes nothing without the token in the file that ",
        element("code", { textContent: "admin.token_file" }),
        " names. It is kept in this tab until it is closed.",
      ),
      element("label", { htmlFor: "token", textContent: "Token" }),
      field,
    ].filter(Boolean),
    value: () => field.value.trim(),
  });
  if (kept) return token.keep(kept);
  $("signed-out").hidden = false;
  await new Promise((again) => $("sign-in").addEventListener("click", again, { once: true }));
  $("signed-out").hidden = true;
  return askToken(false);
}

// Whether a change is meant: what it touches as sentences, and with `deadline` how long it may take.
export async function confirmChange({ title, sentences, warning, confirm, danger, deadline }) {
  const field = element("input", {
    id: "deadline",
    placeholder: "as the version's drain.timeout says",
    pattern: "\\s*\\d+(\\.\\d+)?\\s*(ms|s|m|h|d)\\s*",
    title: "a number with a unit: 30s, 5m, 1h",
    autocomplete: "off",
  });
  return ask({
    title,
    confirm,
    danger,
    tone: danger ? "bad" : "plain",
    content: [
      ...sentences.map((sentence, i) =>
        element("p", {
          className: i === 0 && sentences.length > 1 ? "lead" : "",
          textContent: sentence,
        }),
      ),
      warning &&
        element(
          "p",
          { className: "warning" },
          icon("unready"),
          element("span", { textContent: warning }),
        ),
      ...(deadline
        ? [element("label", { htmlFor: "deadline", textContent: "Deadline (optional)" }), field]
        : []),
    ].filter(Boolean),
    value: () => ({ deadline: field.value.replaceAll(/\s/g, "") || undefined }),
  });
}

// A weight, null for the file's own; undefined when it is left.
export async function askWeight(instance) {
  const field = element("input", {
    id: "weight",
    type: "number",
    min: 0,
    max: 1000,
    step: 1,
    required: true,
    value: instance.weight,
  });
  const back = element("input", { type: "checkbox", id: "file-weight" });
  back.addEventListener("change", () => (field.disabled = back.checked));
  const answer = await ask({
    title: ["Weight of ", element("bdi", { textContent: instance.name })],
    confirm: "Set weight",
    focus: field,
    content: [
      paragraph(
        "An instance of weight 2 gets twice as many new sessions as one of weight 1; 0 gets none. Bound sessions stay where they are.",
      ),
      element("label", { htmlFor: "weight", textContent: "Weight" }),
      field,
      element("label", { className: "check" }, back, "as the file says"),
    ],
    value: () => ({ weight: back.checked ? null : Number(field.value) }),
  });
  return answer ? answer.weight : undefined;
}

// What a reload has changed, or why it was refused.
export function tellReload({ title, lines, tone }) {
  const rows = lines.map((line) =>
    element("li", {}, element("code", { dir: "auto", textContent: line })),
  );
  return ask({
    title: [title],
    leave: "Close",
    tone,
    content: [
      rows.length > 0
        ? element("ul", { className: "lines" }, ...rows)
        : paragraph("Nothing differs from what was served before."),
    ],
  });
}

// `shortcuts` maps keys to what they do; `single` is { on, turn(on) }.
export function tellShortcuts(shortcuts, single) {
  const rows = Object.entries(shortcuts).map(([keys, does]) =>
    element(
      "div",
      {},
      element("dt", {}, ...keys.split(" ").map((key) => element("kbd", { textContent: key }))),
      element("dd", { textContent: does }),
    ),
  );
  const box = element("input", { type: "checkbox", checked: single.on });
  box.addEventListener("change", () => single.turn(box.checked));
  return ask({
    title: ["Keys"],
    leave: "Close",
    content: [
      element("dl", { className: "keys" }, ...rows),
      element("label", { className: "check" }, box, "single keys do something"),
    ],
  });
}

const TOAST = 6_000;

// A line that goes away by itself, but not while somebody points at it.
export function say(text, tone = "good") {
  const line = element(
    "p",
    { className: "toast", data: { tone } },
    icon(tone === "good" ? "ready" : "dead"),
    element("bdi", { textContent: text }),
  );
  $("toasts").append(line);
  const leave = () => (line.matches(":hover") ? setTimeout(leave, TOAST) : line.remove());
  setTimeout(leave, tone === "good" ? TOAST : TOAST * 2);
}

// Asks Burdock where a request would go, and why: service, version, what its token says, who could take
// it and who would. Nothing is sent to an instance.

import { get } from "./api.js";
import { element, icon, name } from "./dom.js";
import { clock, duration, NONE } from "./format.js";

const CANDIDATES = 50;

const input = (id, props) =>
  element("input", { id, autocomplete: "off", spellcheck: false, ...props });
const label = (id, text) => element("label", { htmlFor: id, textContent: text });

export function openExplain(open) {
  const url = input("explain-url", {
    type: "url",
    required: true,
    value: `http://${location.hostname}/`,
  });
  const cookie = input("explain-cookie", {
    placeholder: "a whole Cookie field, or the token alone",
  });
  const answer = element("div", { className: "explained", aria: { live: "polite" } });
  const leave = element("button", { type: "button", textContent: "Close" });
  const form = element(
    "form",
    {},
    element("h2", { id: "explain-title", textContent: "Where would a request go?" }),
    element(
      "div",
      { className: "content" },
      label("explain-url", "URL"),
      url,
      label("explain-cookie", "Cookie (optional)"),
      cookie,
      answer,
    ),
    element(
      "footer",
      {},
      leave,
      element("button", { type: "submit", className: "primary", textContent: "Explain" }),
    ),
  );
  const dialog = element(
    "dialog",
    { className: "ask", aria: { labelledby: "explain-title" } },
    form,
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    answer.replaceChildren(
      ...(await explained(url.value, cookie.value.trim(), (id) => (dialog.close(), open(id)))),
    );
  });
  leave.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  url.select();
}

async function explained(url, cookie, open) {
  const query = new URLSearchParams({ url, ...(cookie && { cookie }) });
  try {
    return tell(await get(`explain?${query}`), open);
  } catch (problem) {
    return [element("p", { className: "refused" }, icon("dead"), problem.message)];
  }
}

// One line for each step on the way, then who could have been chosen.
function tell(
  { listener, service, why_service: why, version, token, candidates, choice, why: reason, outcome },
  open,
) {
  const step = (term, ...value) =>
    element("div", {}, element("dt", { textContent: term }), element("dd", {}, ...value));
  const path = choice && name(choice, { className: "title" });
  const chosen = choice
    ? element(
        "button",
        {
          type: "button",
          className: "plain",
          on: { click: () => open(`${service}/${version}/${choice}`) },
        },
        path,
      )
    : "nobody";
  const rows = (candidates ?? []).slice(0, CANDIDATES).map((it) =>
    element(
      "li",
      { data: { tone: it.in ? "good" : "idle" } },
      icon(it.in ? "ready" : "disabled"),
      name(it.instance),
      element("span", {
        className: "soft",
        textContent: `${it.in ? "in" : "out"}: ${it.reason ?? NONE}`,
      }),
    ),
  );
  const more = (candidates ?? []).length - rows.length;
  return [
    element(
      "p",
      { className: "lead" },
      icon(choice ? "ready" : "dead"),
      element("span", {}, "It goes to ", chosen, `, ${outcome ?? ""}: ${reason ?? ""}`),
    ),
    element(
      "dl",
      { className: "facts" },
      step("Listener", listener ?? NONE),
      step("Service", service ? `${service}: ${why ?? ""}` : `none: ${why ?? ""}`),
      step("Version", version ?? NONE),
      step("Token", tokenText(token)),
    ),
    rows.length > 0 &&
      element(
        "ul",
        { className: "candidates", tabIndex: 0, aria: { label: "candidates" } },
        ...rows,
        more > 0 && element("li", { textContent: `and ${more} more` }),
      ),
  ].filter(Boolean);
}

function tokenText(token) {
  if (!token || token.verdict === "absent") return "none";
  if (token.verdict === "rejected") return `rejected: ${token.reason}`;
  const age =
    token.age_seconds === undefined || token.age_seconds === null
      ? ""
      : `, ${duration(token.age_seconds)} old`;
  return `binds to ${token.instance} by ${token.carrier}${age}, issued ${clock(token.issued)}, key ${token.key ?? NONE}`;
}

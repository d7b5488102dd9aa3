"use strict";
(() => {
  const POINTS = 120; // of a sparkline: two minutes
  const LINES = 200; // of recent invalidations
  const SILENCE = 4000; // ms without a word: from then on what is shown is called old
  const AGAIN = 3000; // ms until a refused connection is tried again

  // ── Words and numbers ────────────────────────────────────────────────────────────────────────

  const whole = new Intl.NumberFormat("en");
  const tenth = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
  const number = (n) => whole.format(Math.round(n));
  const rate = (n) => (n > 0 && n < 10 ? tenth.format(n) : number(n));
  const many = (n, one, more = one + "s") => `${number(n)} ${n === 1 ? one : more}`;

  const bytes = (n) => {
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let at = 0;
    while (n >= 1024 && at < units.length - 1) { n /= 1024; at += 1; }
    return `${at === 0 || n >= 100 ? Math.round(n) : tenth.format(n)} ${units[at]}`;
  };
  /** A duration in seconds, as precise as one wants to read it. */
  const span = (s) => {
    if (s < 0.001) return "under 1 ms";
    if (s < 0.9995) return `${s < 0.01 ? tenth.format(s * 1000) : Math.round(s * 1000)} ms`;
    if (s < 10) return `${tenth.format(s)} s`;
    if (s < 90) return `${Math.round(s)} s`;
    if (s < 90 * 60) return `${Math.round(s / 60)} min`;
    if (s < 48 * 3600) return `${Math.round(s / 3600)} h`;
    return `${Math.round(s / 86400)} days`;
  };
  const ago = (ms) => (ms < 1000 ? "now" : `${span(Math.floor(ms / 1000))} ago`);
  const clock = (ms) => new Date(ms).toLocaleTimeString("en-GB");
  const words = (label) => label.replaceAll("_", " ");

  // ── The document: text only, never markup ────────────────────────────────────────────────────

  const $ = (id) => document.getElementById(id);
  const element = (tag, attributes = {}, ...children) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children.filter((child) => child !== null && child !== undefined));
    return made;
  };
  const drawn = (tag, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  };
  /** Sets a text only where it is another one: nothing is laid out anew, no reader is disturbed. */
  const say = (node, text) => { if (node.textContent !== text) node.textContent = text; };
  const mark = (node, value) => {
    if (value) node.dataset.mark = value; else delete node.dataset.mark;
  };
  const more = (text) => element("span", { class: "more" }, text);

  // ── The answer ───────────────────────────────────────────────────────────────────────────────

  const SIGNS = { fresh: "✓", attention: "◆", behind: "▲", bypassed: "✕", standing_by: "‖", starting: "…", unknown: "?" };
  const ICONS = {
    fresh: ["#00838f", "M6 13l5 5 9-11"], attention: ["#6a45ad", "M13 6v9M13 19v1"], behind: ["#b87400", "M13 5 22 20H4Z"],
    bypassed: ["#b3261e", "M7 7l12 12M19 7 7 19"], standing_by: ["#59636d", "M10 7v12M16 7v12"],
    starting: ["#59636d", "M13 7v6l4 3"], unknown: ["#59636d", "M9 10a4 4 0 1 1 5 4v2M14 20v1"],
  };
  let announced = "";

  const answer = ({ standing, headline, meaning, next }) => {
    if (document.body.dataset.standing !== standing) {
      document.body.dataset.standing = standing;
      $("shape").setAttribute("href", `#shape-${standing}`);
      const [colour, path] = ICONS[standing];
      $("icon").href = `data:image/svg+xml,${encodeURIComponent(
        `<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 26 26'><rect width='26' height='26' rx='6' fill='${colour}'/><path d='${path}' fill='none' stroke='white' stroke-width='3' stroke-linecap='round' stroke-linejoin='round'/></svg>`)}`;
    }
    say($("headline"), headline);
    say($("meaning"), meaning);
    document.title = `${SIGNS[standing]} ${headline} · Unstale`;
    // By state, not by second: "Behind by 3 s" and "by 4 s" are one announcement.
    const state = `${standing} ${headline.replace(/\d+ (s|min|h)$/, "")}`;
    if (state !== announced) {
      announced = state;
      say($("announcement"), `${headline}. ${meaning}`);
    }
    const list = $("next-list");
    if (list.dataset.said !== JSON.stringify(next)) {
      list.dataset.said = JSON.stringify(next);
      list.replaceChildren(...next.map((text) => element("li", {}, element("span", {}, text))));
      $("next").hidden = next.length === 0;
    }
  };

  // ── Vital signs ──────────────────────────────────────────────────────────────────────────────

  const fields = (list, names, tag) => Object.fromEntries(names.map(([id, name]) => {
    const value = element(tag === "li" ? "span" : "dd", { class: "value", id: `${id}-value` });
    const note = element(tag === "li" ? "span" : "dd", { class: "more", id: `${id}-more` });
    const box = tag === "li"
      ? element("li", { id }, element("span", { class: "name" }, name), value, note)
      : element("div", { id }, element("dt", {}, name), value, note);
    list.append(box);
    return [id, { box, value, note }];
  }));

  const vitals = fields($("vitals"), [
    ["lag", "Lag"], ["parked", "Parked"], ["gap", "Last gap"], ["audit", "Audit"],
    ["removal", "Commit to removal, p99"], ["certificate", "Certificate"], ["services", "Services"], ["slot", "Slot"],
  ], "div");

  const vital = (id, value, note, state = "") => {
    const { value: shown, note: below } = vitals[id];
    say(shown, value);
    say(below, note);
    mark(shown, state);
  };

  const show = (f) => {
    const late = f.lag_seconds >= 1;
    vital("lag", late ? span(f.lag_seconds) : "none to speak of",
      `${bytes(f.lag_bytes)} of WAL to go, applied up to ${f.applied_lsn}`, late ? "warn" : "");
    vital("parked", number(f.parked),
      f.parked > 0 ? `committed, not visible yet, for ${span(f.parked_seconds)}: does a synchronous standby hang?`
        : f.suspects > 0 ? `${many(f.suspects, "transaction")} older than the slot watched` : "no transaction waits for a standby",
      f.parked > 0 && f.parked_seconds > 5 ? "warn" : "");
    vital("gap", f.last_gap ? ago(f.at - f.last_gap.at * 1000) : "none",
      f.last_gap ? `${words(f.last_gap.reason)}; ${many(f.gaps, "gap")} since the start` : "nothing was dropped as a whole since the start");
    const a = f.audit;
    vital("audit", a.stale > 0 ? `${number(a.stale)} stale` : a.equal > 0 ? "0 stale" : "nothing compared yet",
      a.stale_at ? `last found ${ago(f.at - a.stale_at)}` :
        `${number(a.equal)} equal, ${number(a.inconsistent)} changed meanwhile`, a.stale > 0 ? "bad" : "");
    const t = f.commit_to_invalidated;
    vital("removal", t.p99 === null ? "–" : span(t.p99), t.p99 === null ? "no commit in the last minute" : `half within ${span(t.p50)}, last minute`);
    vital("certificate", f.certified ? "stands" : "not there",
      f.certified ? "renewed every second, ends 10 s after the last time" : "readers that look for it go to the database", f.certified ? "" : "bad");
    const down = [["Postgres", f.services.postgres], ["Redis", f.services.redis]].filter(([, up]) => !up).map(([name]) => name);
    vital("services", down.length > 0 ? `${down.join(", ")} down` : "both up", `Postgres ${f.services.postgres ? "up" : "down"}, Redis ${f.services.redis ? "up" : "down"}; ${words(f.phase)}`,
      down.length > 0 ? "bad" : "");
    const safe = f.slot_safe_wal_bytes;
    vital("slot", `${bytes(f.slot_retained_bytes)} kept`, safe === null ? "of WAL on the database's disk, no limit set" : `${bytes(safe)} more until it is lost`,
      safe !== null && safe < 256 * 1024 * 1024 ? "warn" : "");
  };

  // ── Rates ────────────────────────────────────────────────────────────────────────────────────

  const rates = fields($("rates"), [["changes", "Changes"], ["invalidations", "Invalidations"], ["fills", "Fills"], ["reads", "Reads"]], "li");
  for (const tile of Object.values(rates)) {
    tile.history = [];
    tile.area = drawn("path", { class: "area" });
    tile.stroke = drawn("path", { class: "stroke" });
    const svg = drawn("svg", { viewBox: `0 0 ${POINTS - 1} 32`, preserveAspectRatio: "none", "aria-hidden": "true" });
    svg.append(drawn("path", { class: "base", d: `M0 32H${POINTS - 1}` }), tile.area, tile.stroke);
    tile.box.append(svg);
  }

  /** The last point at the right; what was not seen is left out. */
  const spark = ({ history, area, stroke }) => {
    const top = Math.max(1, ...history);
    const first = POINTS - history.length;
    const points = history.map((n, at) => `${first + at} ${(31 - (n / top) * 29).toFixed(2)}`);
    if (points.length < 2) return;
    stroke.setAttribute("d", `M${points.join("L")}`);
    area.setAttribute("d", `M${first} 32L${points.join("L")}L${POINTS - 1} 32Z`);
  };

  const flow = (now, counted) => {
    for (const [id, tile] of Object.entries(rates)) {
      if (id === "reads" && !counted) {
        say(tile.value, "–");
        say(tile.note, "the read API is off");
        continue;
      }
      if (!now) continue;
      tile.history.push(now[id]);
      if (tile.history.length > POINTS) tile.history.shift();
      say(tile.value, `${rate(now[id])}/s`);
      say(tile.note, `peak ${rate(Math.max(...tile.history))}/s`);
      spark(tile);
    }
  };

  // ── Recent invalidations ─────────────────────────────────────────────────────────────────────

  let lines = []; // the latest first, each with its row
  let waiting = []; // while the list is held
  let passed = 0; // in the last second, beside those that are listed
  let now = 0;

  const only = $("only");
  const box = $("recent-box");
  const pressed = () => $("hold").getAttribute("aria-pressed") === "true";
  const looked = () => box.matches(":hover") || (box.contains(document.activeElement) && document.activeElement !== box);
  const held = () => pressed() || looked();

  const keyButton = (key) => {
    const button = element("button", { type: "button", "aria-label": `Search ${key}` }, key);
    button.addEventListener("click", () => search(key, true));
    return button;
  };

  const row = (line) => {
    const age = element("td", { class: "age", role: "cell" });
    const dropped = line.whole
      ? [`all of ${line.cache}`, more(words(line.whole))]
      : [`${many(line.keys, "key")} of ${line.cache}`, more(line.kept ? `${number(line.there)} there, kept until refreshed` : `${number(line.there)} there`),
        element("div", { class: "keys" }, ...line.named.map(keyButton), line.keys > line.named.length ? element("span", { class: "quiet" }, `and ${number(line.keys - line.named.length)} more`) : null)];
    const made = element("tr", { role: "row" }, age,
      element("td", { class: "change", role: "cell" }, element("span", { class: "op", "data-op": line.operation }, line.operation), line.table),
      element("td", { class: "dropped", role: "cell" }, ...dropped),
      element("td", { class: "rule", role: "cell" }, line.rule),
      element("td", { class: "commit", role: "cell" }, element("span", { class: "code" }, line.lsn), more(`xid ${line.xid}`)));
    return { ...line, row: made, age, text: [line.table, line.operation, line.rule, line.lsn, line.xid, ...line.named].join(" ").toLowerCase() };
  };

  const passes = (line) => line.text.includes(only.value.trim().toLowerCase());

  const note = () => {
    const parts = [];
    if (pressed()) parts.push(`Held: ${many(waiting.length, "newer line")} not shown.`);
    else if (waiting.length > 0) parts.push(`Held while you look: ${many(waiting.length, "newer line")} not shown.`);
    if (passed > 0) parts.push(`${number(passed)} more were dropped in the last second than are listed.`);
    if (lines.length === 0) parts.push(remembered === 0 ? "Nothing is remembered: pipeline.remembered_drops is 0." : "Nothing was dropped that the daemon remembers.");
    say($("recent-note"), parts.join(" "));
  };

  let remembered = 1;

  const list = (recent, anew) => {
    if (anew) { lines = []; waiting = []; $("recent").replaceChildren(); }
    passed = recent ? recent.left_out : 0;
    if (recent) waiting = [...recent.lines.map(row), ...waiting].slice(0, LINES);
    if (waiting.length > 0 && (anew || !held())) {
      const arrived = waiting.filter(passes);
      for (const line of waiting) line.row.classList.toggle("new", !anew);
      $("recent").prepend(...arrived.map((line) => line.row));
      lines = [...waiting, ...lines];
      for (const line of lines.splice(LINES)) line.row.remove();
      waiting = [];
    }
    for (const line of lines) say(line.age, ago(now - line.at));
    note();
  };

  only.addEventListener("input", () => $("recent").replaceChildren(...lines.filter(passes).map((line) => line.row)));
  $("hold").addEventListener("click", () => {
    $("hold").setAttribute("aria-pressed", String(!pressed()));
    list(null, false);
  });

  // ── Caches ───────────────────────────────────────────────────────────────────────────────────

  const COLUMNS = ["Hits", "Misses", "Hit rate", "Keys", "Memory", "Load p99", "Dropped"];
  let about = new Map();
  let cacheRows = new Map();
  let readsCounted = true;

  const cacheRow = (name) => {
    const known = about.get(name);
    const facts = known && known.key
      ? [known.group, `${known.priority} priority`, `TTL ${span(known.ttl_seconds)}`].filter(Boolean).join(", ")
      : "composed of others, no keys of its own";
    const cells = COLUMNS.map((column) => element("td", { class: "n", role: "cell", "data-name": column }, element("span", {}), more("")));
    const bar = element("span", { class: "bar", "aria-hidden": "true" });
    cells[2].prepend(bar);
    const made = element("tr", { role: "row", "data-cache": name }, element("th", { scope: "row", role: "rowheader" }, name, more(facts)), ...cells);
    return { made, bar, cells: cells.map((cell) => [cell.querySelector("span:not(.bar)"), cell.querySelector(".more")]) };
  };

  const showCaches = (caches) => {
    const names = caches.map((cache) => cache.name).join();
    if ($("caches").dataset.names !== names) {
      $("caches").dataset.names = names;
      cacheRows = new Map(caches.map((cache) => [cache.name, cacheRow(cache.name)]));
      $("caches").replaceChildren(...[...cacheRows.values()].map((known) => known.made));
    }
    for (const cache of caches) {
      const { bar, cells } = cacheRows.get(cache.name);
      const stored = Boolean(about.get(cache.name)?.key);
      const all = cache.hits + cache.misses + cache.bypasses + cache.errors;
      const share = all > 0 ? cache.hits / all : null;
      const set = (at, text, below = "") => { say(cells[at][0], text); say(cells[at][1], below); };
      set(0, readsCounted ? number(cache.hits) : "–");
      set(1, readsCounted ? number(cache.misses) : "–", cache.bypasses + cache.errors > 0 ? `${number(cache.bypasses)} bypassed, ${number(cache.errors)} failed` : "");
      set(2, share === null ? "–" : `${tenth.format(share * 100)} %`);
      bar.hidden = share === null;
      bar.style.setProperty("--share", share ?? 0);
      set(3, !stored ? "–" : cache.keys === null ? "not counted yet" : number(cache.keys));
      set(4, !stored ? "–" : cache.bytes === null ? "not counted yet" : bytes(cache.bytes));
      const lately = cache.load_p99_lately;
      set(5, cache.load_p99 === null ? "–" : span(lately ?? cache.load_p99),
        cache.load_p99 === null ? "" : lately === null ? "since the start" : `${span(cache.load_p99)} since the start`);
      set(6, stored ? number(cache.invalidated) : "–", stored ? `of ${number(cache.invalidations)} named` : "");
    }
  };

  // ── What waits to be filled ──────────────────────────────────────────────────────────────────

  const warm = fields($("warm"), [["high", "High priority"], ["medium", "Medium priority"], ["low", "Low priority"], ["leases", "Readers waiting"], ["given-up", "Given up"]], "div");
  const showWarm = (f) => {
    for (const { priority, waiting: entries, dropped } of f.warm.queue) {
      say(warm[priority].value, number(entries));
      say(warm[priority].note, dropped > 0 ? `${number(dropped)} dropped: too many waited` : "none dropped");
    }
    say(warm.leases.value, number(f.leases_waiting));
    say(warm.leases.note, "for somebody else's load");
    say(warm["given-up"].value, number(f.warm.given_up));
    say(warm["given-up"].note, "for other reasons, since the start");
  };

  // ── Search ───────────────────────────────────────────────────────────────────────────────────

  const search = (key, scroll = false) => { void key; void scroll; };

  // ── The feed ─────────────────────────────────────────────────────────────────────────────────

  let heard = 0; // by this browser's clock
  let started = null;

  const link = (state, text) => { $("link").dataset.link = state; say($("link-text"), text); };

  const hello = (h) => {
    about = new Map(h.caches.map((cache) => [cache.name, cache]));
    readsCounted = h.reads;
    remembered = h.remembered;
    delete $("caches").dataset.names;
    say($("whose"), `${h.slot} · ${h.version} · up since ${new Date(h.started).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" })}`);
    say($("caches-note"), h.reads ? "" : "The read API is off: reads by others are not seen from here.");
    $("key-forms").replaceChildren(...h.caches.filter((cache) => cache.key).map((cache) => element("li", {}, element("code", {}, cache.key))));
    if (started !== h.started) for (const tile of Object.values(rates)) tile.history = [];
    started = h.started;
  };

  const told = (message) => {
    heard = Date.now();
    now = message.figures.at;
    document.body.classList.remove("silent");
    document.body.classList.add("heard");
    link("live", "Live");
    if (message.hello) hello(message.hello);
    answer(message.figures.verdict);
    show(message.figures);
    flow(message.figures.rates, readsCounted);
    list(message.recent ?? null, Boolean(message.hello));
    showCaches(message.figures.caches);
    showWarm(message.figures);
  };

  const silent = (why) => {
    link("lost", "No connection");
    document.body.classList.add("silent");
    answer({
      standing: "unknown",
      headline: "No word from the daemon",
      meaning: heard > 0 ? `Last heard at ${clock(heard)}. What stands below is what it said then.` : "It has not been heard since this page was opened.",
      next: [why ?? "Is it running, and is the way to it open? This page goes on by itself once it answers."],
    });
  };

  let source;
  const connect = () => {
    source = new EventSource("/console/events");
    source.addEventListener("message", (event) => told(JSON.parse(event.data)));
    source.addEventListener("error", async () => {
      if (source.readyState !== EventSource.CLOSED) return; // it tries again by itself
      // Refused: the answer says why, which an EventSource does not tell.
      source.close();
      setTimeout(connect, AGAIN);
    });
  };
  setInterval(() => { if (Date.now() - heard > SILENCE && (heard > 0 || source.readyState !== EventSource.OPEN)) silent(); }, 1000);
  connect();
})();

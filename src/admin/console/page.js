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

  const SIGNS = { fresh: "✓", attention: "◆", behind: "▲", bypassed: "✕", standby: "‖", starting: "…", unknown: "?" };
  const ICONS = {
    fresh: ["#00838f", "M6 13l5 5 9-11"], attention: ["#6a45ad", "M13 6v9M13 19v1"], behind: ["#b87400", "M13 5 22 20H4Z"],
    bypassed: ["#b3261e", "M7 7l12 12M19 7 7 19"], standby: ["#59636d", "M10 7v12M16 7v12"],
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
    vital("lag", f.lag_seconds > 0 ? span(f.lag_seconds) : "none",
      `${bytes(f.lag_bytes)} of WAL to go, applied up to ${f.applied_lsn}${f.proven_seconds_ago === null ? "" : `; last proven ${ago(f.proven_seconds_ago * 1000)}`}`, late ? "warn" : "");
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
    const renewed = f.services.redis && f.phase === "streaming";
    vital("certificate", !f.certified ? "not there" : renewed ? "stands" : "ends soon",
      !f.certified ? "readers that look for it go to the database" : `${renewed ? "renewed every second" : "not renewed now"}, ends 10 s after the last time`,
      !f.certified ? "bad" : renewed ? "" : "warn");
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
    const button = element("button", { type: "button", title: key, "aria-label": `Search ${key}` }, key.startsWith(prefix) ? key.slice(prefix.length) : key);
    button.addEventListener("click", () => search(key, true));
    return button;
  };

  const row = (line) => {
    const age = element("td", { class: "age", role: "cell" });
    const dropped = line.whole
      ? [`all of ${line.cache}`, more(words(line.whole))]
      : [`${many(line.keys, "key")} of ${line.cache}, ${line.kept ? `${number(line.there)} kept until refreshed` : `${number(line.there)} there`}`,
        element("div", { class: "keys" }, ...line.named.map(keyButton),
          line.keys > line.named.length ? element("span", { class: "rest" }, `and ${number(line.keys - line.named.length)} more`) : null)];
    // Where it stands in the configuration goes below what it says.
    const [, says, place] = /^(.*?)(?: (\(.*\)))?$/s.exec(line.rule);
    const made = element("tr", { role: "row" }, age,
      element("td", { class: "change", role: "cell" }, element("span", { class: "op", "data-op": line.operation }, line.operation), line.table),
      element("td", { class: "dropped", role: "cell" }, ...dropped),
      element("td", { class: "rule", role: "cell" }, `${says} `, place ? more(place) : null),
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
  let prefix = ""; // of all keys: not worth its room in the list

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

  const NOT_COUNTED = "not counted yet";
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
      const others = [[cache.bypasses, "bypassed"], [cache.old, "old"], [cache.errors, "failed"]].filter(([n]) => n > 0);
      const all = cache.hits + cache.misses + others.reduce((sum, [n]) => sum + n, 0);
      const share = all > 0 ? cache.hits / all : null;
      const set = (at, text, below = "") => {
        const [shown, note] = cells[at];
        say(shown, text);
        say(note, below);
        shown.parentElement.classList.toggle("none", text === "–" || text === NOT_COUNTED);
      };
      set(0, readsCounted ? number(cache.hits) : "–");
      set(1, readsCounted ? number(cache.misses) : "–", others.map(([n, what]) => `${number(n)} ${what}`).join(", "));
      set(2, share === null ? "–" : `${tenth.format(share * 100)} %`);
      bar.hidden = share === null;
      bar.style.setProperty("--share", share ?? 0);
      set(3, !stored ? "–" : cache.keys === null ? NOT_COUNTED : number(cache.keys));
      set(4, !stored ? "–" : cache.bytes === null ? NOT_COUNTED : bytes(cache.bytes));
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

  const field = $("key");
  let asked = 0; // only the last question's answer is shown

  const dropped = (d) => `${ago(d.age_seconds * 1000)}: ${d.operation} of ${d.table}, xid ${d.xid}, LSN ${d.lsn}; by ${d.rule}`;
  const sentence = ({ redis, since, cache, problem }) => {
    if (!redis) return `Redis does not tell: ${problem}`;
    if (!redis.present) return cache ? "Not cached now." : "Not there, and no cache of the configuration has such keys.";
    const life = redis.ttl_ms === null ? "without expiry" : `lives ${span(redis.ttl_ms / 1000)} more`;
    if (since?.kind === "known") return `Cached since ${span(since.age_seconds)}, ${life}.`;
    if (since) return `Cached, for ${span(since.age_seconds)} at most, ${life}.`;
    return `Cached, ${life}.`;
  };

  /** What is known of a key, as names and values. */
  const facts = (found) => {
    const { redis, since, daemon, generation } = found;
    const told = [["Key", element("code", {}, found.key)]];
    const parameters = Object.entries(found.parameters).map(([name, value]) => `${name}=${value}`).join(", ");
    told.push(["Cache", found.cache ? [found.cache, parameters].filter(Boolean).join(" · ") : "none has such keys"]);
    if (since?.kind === "known") told.push(["From", `a snapshot at LSN ${since.snapshot_lsn} or later, stored by this daemon`]);
    else if (since) told.push(["From", "not known: another filler stored it, or it is no longer remembered; how old it is at most, its TTL tells"]);
    if (redis) {
      if (redis.due_in_ms !== null) told.push(["Due", `in ${span(redis.due_in_ms / 1000)}: it may lack a change, and goes unless it is refreshed`]);
      if (generation) {
        const present = redis.generation === generation.of_entry;
        told.push(["Generation", present ? `${generation.of_entry}, the present one` : redis.generation === null
          ? `${generation.of_entry}, the scope has none now` : `${generation.of_entry}, the present one is ${redis.generation}: nobody reads this entry any more`]);
      }
      told.push(["Lease", redis.lease_ttl_ms === null ? "nobody computes it now" : `somebody computes it, for ${span(redis.lease_ttl_ms / 1000)} at most`]);
    }
    const drop = daemon.last_drop;
    const there = drop && (drop.kept ? "it stayed until it was refreshed, or due" : drop.present ? "it was there" : "it was not there");
    told.push([drop?.kept ? "Last change" : "Last drop", drop ? `${dropped(drop)}; ${there}` : "none that the daemon remembers"]);
    if (daemon.last_whole_drop) told.push(["Whole cache", `${dropped(daemon.last_whole_drop)}; as a whole because of ${words(daemon.last_whole_drop.reason)}`]);
    if (daemon.last_gap) told.push(["Last gap", `${ago(now - daemon.last_gap.at * 1000)}: everything was dropped (${words(daemon.last_gap.reason)})`]);
    if (found.cache) {
      told.push(["Dropped by", found.rules.length > 0
        ? element("ul", {}, ...found.rules.map((rule) => element("li", {}, rule))) : "no rule: it only expires"]);
    }
    return told;
  };

  const search = async (key, scroll = false) => {
    field.value = key;
    asked += 1;
    const question = asked;
    history.replaceState(null, "", `#key=${encodeURIComponent(key)}`);
    let found;
    try {
      const answered = await fetch(`/console/key?key=${encodeURIComponent(key)}`);
      if (!answered.ok) throw new Error((await answered.text()).trim() || `it answered ${answered.status}`);
      found = await answered.json();
    } catch (error) {
      if (question !== asked) return;
      say($("found-summary"), `No answer from the daemon: ${error.message}`);
      $("found").hidden = true;
      return;
    }
    if (question !== asked) return;
    say($("found-summary"), sentence(found));
    $("found").replaceChildren(element("dl", { class: "found" }, ...facts(found).flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)])));
    $("found").hidden = false;
    if (scroll) {
      field.focus({ preventScroll: true });
      const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
      $("search-title").scrollIntoView({ behavior: still ? "auto" : "smooth" });
    }
  };

  $("search").addEventListener("submit", (event) => {
    event.preventDefault();
    const key = field.value.trim();
    if (key !== "") void search(key);
  });
  /** A link that somebody was sent. */
  const linked = () => {
    const key = location.hash.startsWith("#key=") ? location.hash.slice(5) : "";
    if (key !== "") try { void search(decodeURIComponent(key)); } catch { /* no such link */ }
  };
  addEventListener("hashchange", linked);

  // ── The feed ─────────────────────────────────────────────────────────────────────────────────

  let heard = 0; // by this browser's clock
  let started = null;

  const link = (state, text) => { $("link").dataset.link = state; say($("link-text"), text); };

  const hello = (h) => {
    about = new Map(h.caches.map((cache) => [cache.name, cache]));
    readsCounted = h.reads;
    remembered = h.remembered;
    prefix = h.key_prefix;
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
    source.addEventListener("error", () => {
      if (source.readyState !== EventSource.CLOSED) return; // it tries again by itself
      // Refused for good, as when too many watch: an EventSource does not say why.
      silent("It refuses this page, most likely because too many consoles are open (16). Close one: this page tries again by itself.");
      setTimeout(connect, AGAIN);
    });
  };
  setInterval(() => { if (Date.now() - heard > SILENCE && (heard > 0 || source.readyState !== EventSource.OPEN)) silent(); }, 1000);
  connect();
  linked();
})();

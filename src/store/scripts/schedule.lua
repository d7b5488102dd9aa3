#!lua flags=allow-oom
-- Whose turn a task of the schedule is, and when. By Redis' clock alone: the clocks of the
-- daemons do not matter.
--
-- KEYS  1 the task's record
-- ARGV  1 'begin', 'renew' or 'end', 2 a token of whoever asks, 3 the record's life in ms, then of
--       begin: 4 the turn's life in ms, 5 how long from now it is due if nothing is known,
--              6 how long at the most (its period may have become shorter)
--       renew: 4 the turn's life in ms
--       end:   4 how long after its beginning it is due again, 5 and from now at the least, both in
--              ms, 6 what came of it, 7 in words
-- Answers to begin {'go', whether another's turn has expired} or {'wait', ms}; to the others 1, or 0
-- if the turn is not this token's any more.
--
-- allow-oom: a few bytes, and maintenance is what a full Redis needs.
local read, record = pcall(cjson.decode, redis.call('GET', KEYS[1]) or '{}')
if not read or type(record) ~= 'table' then
  record = {}
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function save()
  redis.call('SET', KEYS[1], cjson.encode(record), 'PX', ARGV[3])
end
if ARGV[1] == 'begin' then
  local due = math.min(record.due or now + ARGV[5], now + ARGV[6])
  if due ~= record.due then
    record.due = due
    save()
  end
  local held = record.holder and record.holder ~= ARGV[2]
  if held and record.held_until > now then
    return {'wait', record.held_until - now}
  end
  if due > now then
    return {'wait', due - now}
  end
  record.holder, record.held_until, record.began = ARGV[2], now + ARGV[4], now
  save()
  return {'go', held and 1 or 0}
end
if record.holder ~= ARGV[2] then
  return 0
end
if ARGV[1] == 'renew' then
  record.held_until = now + ARGV[4]
else
  record.due = math.max(record.began + ARGV[4], now + ARGV[5])
  record.holder, record.held_until = nil, nil
  record.last_began, record.last_ended = record.began, now
  record.result, record.detail = ARGV[6], ARGV[7]
end
save()
return 1

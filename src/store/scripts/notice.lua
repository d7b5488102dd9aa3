#!lua flags=allow-oom
-- Tells the daemon that entries were removed by hand; or, by the daemon, that it knows.
--
-- KEYS  1 the notices
-- ARGV  1 how long they are kept, in ms, then a notice's id and its text, and so on. An id
--       alone, with the text 'done', is only noted where the notice still is.
--
-- allow-oom: a full Redis must still lose entries, and what is held of them.
for i = 2, #ARGV, 2 do
  if ARGV[i + 1] ~= 'done' or redis.call('HGET', KEYS[1], ARGV[i]) then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
  end
end
local now = redis.call('TIME')
redis.call('PEXPIREAT', KEYS[1], now[1] * 1000 + math.floor(now[2] / 1000) + ARGV[1])
return 1

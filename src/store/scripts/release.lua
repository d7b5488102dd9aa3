#!lua flags=allow-oom
-- Gives a lease back, so that the next reader need not wait for its end.
--
-- KEYS  1 the lease
-- ARGV  1 its token
local token = string.match(redis.call('GET', KEYS[1]) or '', '^(%S+)')
if token == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0

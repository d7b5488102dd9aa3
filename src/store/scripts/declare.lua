#!lua flags=allow-oom
-- Makes the state invalid, whatever it was: no lease is given from here on, no
-- certificate stands. Unconditional: to lose the cache is always safe.
--
-- KEYS  1 the state, 2 the certificate
-- ARGV  field, value, … of the new state
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('HSET', KEYS[1], unpack(ARGV))
return redis.status_reply('OK')

#!lua flags=allow-oom
-- Does once what the daemon does all day, with keys that nobody else has, and leaves
-- nothing behind.
--
-- KEYS  1 like the state, 2 like the certificate, 3… like a value and its lease, by turns
redis.call('HSET', KEYS[1], 'nonce', 'probe')
redis.call('HGET', KEYS[1], 'nonce')
redis.call('SET', KEYS[2], 'probe', 'PX', 1000)
for i = 3, #KEYS do
  redis.call('SET', KEYS[i], 'probe', 'PX', 1000)
  redis.call('GET', KEYS[i])
  redis.call('PTTL', KEYS[i])
end
redis.call('UNLINK', unpack(KEYS))
redis.call('DEL', KEYS[1])
return redis.status_reply('OK')

#!lua
-- The generation of a scope, made if there is none. Random, never a counter: if Redis
-- evicts it, what was stored under an old one must not come back.
--
-- KEYS  1 the generation, 2 the state
-- ARGV  1 a random text, 2 its life in ms
-- Answers the generation, or nothing if fills are not accepted.
local generation = redis.call('GET', KEYS[1])
if generation then
  return generation
end
if redis.call('HGET', KEYS[2], 'valid') ~= '1' then
  return false
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return ARGV[1]

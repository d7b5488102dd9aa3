#!lua
-- Asks for the right to compute a value anew that may be there, and may lack a change
-- (`on_change = "refresh"`): as acquire.lua, but for the value.
--
-- KEYS  1 the key, 2 its lease, 3 the state
-- ARGV  1 a token that nobody used before, 2 the lease's life in ms, 3 the cache's name,
--       4 how many ms a value may stay that lacks a change
-- Answers {'fresh', remaining life in ms}: it lacks nothing that was applied; or as acquire.lua
-- {'lease', …}, {'wait', …}, {'closed'}.
local state = redis.call('HMGET', KEYS[3], 'valid', 'closed', 'frontier', 'system_id', 'timeline')
if state[1] ~= '1' or string.find(state[2] or '', '"' .. ARGV[3] .. '"', 1, true) then
  return {'closed'}
end
local life = redis.call('PTTL', KEYS[1])
if life == -1 or life > tonumber(ARGV[4]) then
  return {'fresh', life}
end
local left = redis.call('PTTL', KEYS[2])
if left ~= -2 then
  return {'wait', left}
end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
return {'lease', state[3], state[4], state[5]}

#!lua flags=allow-oom
-- Removes entries, each with its lease: what is being computed for one of them now will not
-- be stored. Moves no chain: to lose an entry is always safe.
--
-- KEYS  the keys
-- ARGV  1 what makes a lease of a key, 2 'remove', or 'count' to look only
-- Answers for each key what there was: 0 nothing, 1 a value, 2 a lease, 3 both.
--
-- allow-oom: a full Redis must still lose entries.
local command = ARGV[2] == 'remove' and 'UNLINK' or 'EXISTS'
local found = {}
for i, key in ipairs(KEYS) do
  local lease = ARGV[1] .. '{' .. key .. '}'
  found[i] = redis.call(command, key) + 2 * redis.call(command, lease)
end
return found

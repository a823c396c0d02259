-- A permit that is used later than its moment counts from now on, so that what follows keeps its distance. The permits
-- that were given with it, and are used after it, will be late as well: the same call moves them.
--
-- KEYS: 1 permits of the last second (sorted set, by their moments)
-- ARGV: 1 most in a second, 2 the second's window, 3 the longest pause; then for each permit its name, and how long
--       after the first one it is ready; times in microseconds
-- Returns for each permit how far ahead it may be used, and how far ahead its new moment is, in microseconds.

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local limit, window, longest = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
for place = 4, #ARGV, 2 do redis.call('ZREM', KEYS[1], ARGV[place]) end
local moved, last = {}, now
for place = 4, #ARGV, 2 do
  local oldest = redis.call('ZREVRANGE', KEYS[1], limit - 1, limit - 1, 'WITHSCORES')[2]
  local earliest = math.max(now, checked(oldest, now - window, 0, now + longest) + window)
  local moment = math.max(now + tonumber(ARGV[place + 1]), earliest)
  redis.call('ZADD', KEYS[1], string.format('%.0f', moment), ARGV[place])
  moved[#moved + 1], moved[#moved + 2] = math.ceil(earliest - now), math.ceil(moment - now)
  last = math.max(last, moment)
end
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -limit - 1)
redis.call('PEXPIRE', KEYS[1], math.ceil((last - now + window) / 1000) + 2000)
return moved

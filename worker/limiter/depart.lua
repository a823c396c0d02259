-- A permit that is used later than its moment counts from now on, so that what follows keeps its distance.
--
-- KEYS: 1 permits of the last second (sorted set, by their moments)
-- ARGV: 1 the permit, 2 most in a second, 3 the second's window, 4 the longest pause, in microseconds
-- Returns 0, or microseconds to wait before sending where too many others were sent meanwhile: it counts from then on.

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local limit, window = tonumber(ARGV[2]), tonumber(ARGV[3])
redis.call('ZREM', KEYS[1], ARGV[1])
local oldest = redis.call('ZREVRANGE', KEYS[1], limit - 1, limit - 1, 'WITHSCORES')[2]
local sent = math.max(now, checked(oldest, now - window, 0, now + tonumber(ARGV[4])) + window)
redis.call('ZADD', KEYS[1], string.format('%.0f', sent), ARGV[1])
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -limit - 1)
redis.call('PEXPIRE', KEYS[1], math.ceil((sent - now + window) / 1000) + 2000)
return math.ceil(sent - now)

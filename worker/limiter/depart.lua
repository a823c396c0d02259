-- A permit that was used later than it was given counts from now on, so that what follows keeps its distance.
--
-- KEYS: 1 permits of the last second (list)
-- ARGV: 1 the permit, 2 most in a second, 3 the second's window in microseconds
-- Returns 0, or microseconds to wait before sending where too many others were sent meanwhile: it counts from then on.

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
redis.call('LREM', KEYS[1], 1, ARGV[1])
local oldest = redis.call('LINDEX', KEYS[1], tonumber(ARGV[2]) - 1)
local sent = math.max(now, oldest and tonumber(oldest) + tonumber(ARGV[3]) or now)
redis.call('LPUSH', KEYS[1], string.format('%.0f', sent))
redis.call('LTRIM', KEYS[1], 0, tonumber(ARGV[2]) - 1)
redis.call('PEXPIRE', KEYS[1], math.ceil(tonumber(ARGV[3]) / 1000) + 1000)
return math.ceil(sent - now)

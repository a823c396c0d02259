-- A worker reports that it is alive, and gets the number of workers, its place among them, and the pause, if any.
--
-- A worker that has been silent for a while may be unable to reach Redis and use its own share of the quota, so that
-- share is taken off the pace until the worker reports again or is forgotten.
--
-- KEYS: 1 state (hash), 2 workers (sorted set, by when they were last heard)
-- ARGV: 1 the worker, 2 silent after, 3 forgotten after (microseconds), 4 the part of the quota that is spent by workers
--       without Redis, 5 milliseconds to keep the state, 6 most workers, 7 the longest pause (microseconds)
-- Returns: workers, place, and how long the pause lasts

local worker, forget_after, longest = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[7])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
redis.call('ZADD', KEYS[2], string.format('%.0f', now), worker)
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - forget_after)
redis.call('ZREMRANGEBYSCORE', KEYS[2], now + forget_after, '+inf') -- Redis's clock was set back
if redis.call('ZCARD', KEYS[2]) > tonumber(ARGV[6]) then error(spoilt) end
redis.call('PEXPIRE', KEYS[2], math.ceil(forget_after / 1000))

local heard = redis.call('ZRANGE', KEYS[2], 0, -1, 'WITHSCORES')
local workers, place, silent = #heard / 2, 0, 0
for i = 1, #heard, 2 do
  if heard[i] < worker then place = place + 1 end
  if tonumber(heard[i + 1]) < now - tonumber(ARGV[2]) then silent = silent + 1 end
end
-- A pause that ends too late is stored shorter, so that it ends, whoever asks and however often. After Redis's clock
-- was set back, permit.lua shifts the instants when it is next called; until then they are read with that much less.
local read = redis.call('HMGET', KEYS[1], 'pause', 'last')
local back = math.max(0, checked(read[2], 0, 0, LAST_INSTANT) - now)
local pause = checked(read[1], 0, 0, LAST_INSTANT) - back - now
if pause > longest then
  pause = longest
  redis.call('HSET', KEYS[1], 'pause', string.format('%.0f', now + longest + back))
end
redis.call('HSET', KEYS[1], 'share', tostring(1 - tonumber(ARGV[4]) * silent / workers))
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return {workers, place, math.ceil(math.max(0, pause))}

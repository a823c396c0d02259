-- TikTok said that a limit was broken: nobody is given a permit for a while, and then fewer for a while more.
--
-- KEYS: 1 state (hash)
-- ARGV: 1 pause, 2 ramp (how long permits rise to the full pace after it), 3 what is added to the second's window,
--       4 most that is added in all, 5 how long that is kept (it fades), 6 milliseconds to keep the state, 7 the longest
--       pause; all else in microseconds. Many workers meet the same broken limit, so what comes within a pause adds nothing.

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local read = redis.call('HMGET', KEYS[1], 'pause', 'ramp', 'guard', 'guarded')
local longest = tonumber(ARGV[7])
local pause = math.min(checked(read[1], 0, 0, LAST_INSTANT), now + longest)
local ramp = checked(read[2], 0, 0, longest)
local guard, guarded = checked(read[3], 0, 0, tonumber(ARGV[4])), math.min(checked(read[4], 0, 0, LAST_INSTANT), now)
local added, guard_life = tonumber(ARGV[3]), tonumber(ARGV[5])
if added > 0 and now >= pause then
  guard = guard * math.max(0, 1 - (now - guarded) / guard_life)
  guard, guarded = math.min(guard + added, tonumber(ARGV[4])), now
end
if now + tonumber(ARGV[1]) >= pause then
  pause, ramp = now + tonumber(ARGV[1]), math.max(tonumber(ARGV[2]), now < pause and ramp or 0)
end
redis.call('HSET', KEYS[1], 'pause', string.format('%.0f', pause), 'ramp', string.format('%.0f', ramp),
  'guard', string.format('%.0f', guard), 'guarded', string.format('%.0f', guarded))
redis.call('PEXPIRE', KEYS[1], ARGV[6])
return 1

-- Permits of the quota, or the time to wait for one: one atomic decision on Redis's clock, in microseconds.
--
-- Sustained pace: GCRA; `tat` is when the next permit is due by the pace, and lateness is caught up within `slack`.
-- The second, and one account on one call in a minute: the last `limit` permits are kept, and the oldest must have left
-- the window, which is longer than TikTok's because requests overtake each other on their way.
-- A permit is for a moment at most `lead` ahead: a caller that comes a little early gets it at once and holds the
-- request until then, so that no moment is wasted because nobody happened to ask at exactly that time.
-- A caller that asks for several permits sends the first request after `start` and the others `each` apart: each permit
-- counts from when its request can be ready, if that is within `lead`. It may be used from when the limits permit it
-- until the moment at which it is counted.
-- A denied caller gets a place in a queue that is not binding: so the callers come back one by one, not all together,
-- and half of the lead before their moment.
--
-- KEYS: 1 state (hash), 2 permits of the last second (sorted set, by their moments), 3 refreshes expected (number),
--       4 and on: permits of each account on this call (list)
-- Returns: wait, epoch, pause left, and for each permit its name, how far ahead it may be sent, and how far ahead its
--          moment is

local lane, known_epoch, was_alone = ARGV[1], ARGV[2], ARGV[3] == '1'
local interval, slack = tonumber(ARGV[4]), tonumber(ARGV[5])
local second_limit, second_window = tonumber(ARGV[6]), tonumber(ARGV[7])
local account_limit, account_window = tonumber(ARGV[8]), tonumber(ARGV[9])
local quiet, horizon, reserve = tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12])
local least_share, guard_life, keep = tonumber(ARGV[13]), tonumber(ARGV[14]), tonumber(ARGV[15])
local lead, longest, guard_most = tonumber(ARGV[16]), tonumber(ARGV[17]), tonumber(ARGV[18])
local start, each, first_account = tonumber(ARGV[19]), tonumber(ARGV[20]), 4

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local names = {'tat', 'last', 'opens', 'quieted', 'queue:refresh', 'queue:pull', 'pull', 'wanted', 'pause', 'ramp',
  'guard', 'guarded', 'hasty'}
local read = redis.call('HMGET', KEYS[1], 'epoch', 'share', unpack(names))
local epoch, share, state = read[1], checked(read[2], 1, 0.1, 1), {}
if epoch then whole(epoch, 20) end
local expected = whole(redis.call('GET', KEYS[3]) or '0', 9)
local most = {ramp = longest, guard = guard_most}
for i, name in ipairs(names) do
  state[name] = checked(read[i + 2], 0, 0, most[name] or LAST_INSTANT)
end

-- If the state is gone (restart, FLUSHALL), or a worker used its own share meanwhile: give nothing until these permits
-- are out of the second, and until the other workers use Redis again as well.
if not epoch then
  epoch = string.format('%.0f', now)
  state.tat = now
end
if (was_alone or (known_epoch ~= '' and known_epoch ~= epoch)) and now - state.quieted > 10 * quiet then
  state.quieted, state.opens = now, now + quiet
  state.tat = math.max(state.tat, state.opens + slack)
end
-- If Redis's clock was set back, shift every instant, so that nobody waits for the old time.
if state.last > now then
  local back = state.last - now
  for _, name in ipairs({'tat', 'queue:refresh', 'queue:pull', 'pull', 'wanted', 'pause', 'guarded', 'quieted', 'hasty'}) do
    state[name] = math.max(state[name] - back, 0)
  end
  redis.call('DEL', KEYS[2], unpack(KEYS, first_account))
  state.opens, state.last = now + second_window, now
end
-- Redis's clock ran ahead while nobody asked, or somebody wrote to the state: no instant is further ahead than the
-- longest pause, so that nothing holds permits back for longer.
for _, name in ipairs({'tat', 'opens', 'queue:refresh', 'queue:pull', 'pull', 'wanted', 'pause', 'hasty'}) do
  state[name] = math.min(state[name], now + longest)
end
state.quieted, state.guarded = math.min(state.quieted, now), math.min(state.guarded, now)

if now < state.pause + state.ramp then
  share = share * math.max(least_share, math.min(1, (now - state.pause) / state.ramp))
end
local pace = interval / share
local guard = state.guard * math.max(0, 1 - (now - state.guarded) / guard_life)

local wait, given, permits = 0, 0, {}
for place = first_account, #KEYS do
  local ready = now + start + given * each
  local opens = math.max(state.opens, state.pause, state.tat - slack)
  local oldest = redis.call('ZREVRANGE', KEYS[2], second_limit - 1, second_limit - 1, 'WITHSCORES')[2]
  if oldest then opens = math.max(opens, checked(oldest, nil, 0, now + longest) + second_window + guard) end

  local pull_pace, ahead = 0, lead
  if lane == 'pull' then
    if state.wanted > now then ahead = 0 end -- a refresh is on its way back: its place is not taken early
    local left = 1 - expected * pace / reserve
    opens = math.max(opens, state.pull, state.wanted)
    if left > 0.01 then pull_pace = pace / left else opens, ahead = math.max(opens, now + reserve / 4), 0 end
  end

  local account_opens = 0
  local first = redis.call('LINDEX', KEYS[place], account_limit - 1)
  if first then account_opens = math.min(checked(first, nil, 0, now + longest), now) + account_window end

  local earliest, moment = math.max(now, opens), math.max(ready, opens)
  if opens <= now + ahead and account_opens <= now and (given == 0 or moment <= now + ahead) then
    local stamp = string.format('%.0f', moment)
    local permit = stamp .. ':' .. string.format('%.0f', now) .. ':' .. given
    given = given + 1
    state.tat, state.last = math.max(state.tat, earliest) + pace, now
    redis.call('ZADD', KEYS[2], stamp, permit)
    redis.call('LPUSH', KEYS[place], stamp)
    redis.call('LTRIM', KEYS[place], 0, account_limit - 1)
    redis.call('PEXPIRE', KEYS[place], math.ceil((account_window + lead) / 1000))
    if lane == 'pull' then
      state.pull = math.max(state.pull, earliest - slack) + pull_pace -- lateness is caught up here as well
    elseif state.wanted < moment + pace then
      state.wanted = 0
    end
    for _, value in ipairs({permit, math.ceil(earliest - now), math.ceil(moment - now)}) do
      permits[#permits + 1] = value
    end
  else
    if given > 0 then break end -- what was given comes first; then it is asked again
    if account_opens > opens then
      wait = account_opens - now
    else
      local told = opens
      if opens - now < 0.9 * pace and math.abs(opens - state.hasty) > pace / 2 then
        state.hasty = opens -- a little too early, and the first to be, so not to the end of the queue
      else
        local queue = 'queue:' .. lane
        told = math.max(state[queue], opens)
        if told > opens + horizon then
          -- The queue is full. Refreshes begin it anew; a pull is told to stay away, since asking again costs as well.
          told = lane == 'refresh' and opens or told + 2 * horizon
        end
        if told <= opens + horizon then
          state[queue] = told + math.max(pace, pull_pace)
        end
      end
      if lane == 'refresh' then state.wanted = math.max(state.wanted, told + pace / 2) end
      wait = math.max(told - ahead / 2, opens - ahead) - now
    end
    break
  end
end
if given > 0 then
  redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -second_limit - 1)
  redis.call('PEXPIRE', KEYS[2], math.ceil((second_window + guard + lead) / 1000) + 1000)
  if lane ~= 'pull' and expected > 0 then redis.call('DECRBY', KEYS[3], math.min(given, expected)) end
end

local write = {'epoch', epoch}
for _, name in ipairs(names) do
  write[#write + 1] = name
  write[#write + 1] = string.format('%.0f', state[name])
end
redis.call('HSET', KEYS[1], unpack(write))
redis.call('PEXPIRE', KEYS[1], keep)
return {math.ceil(wait), epoch, math.ceil(math.max(0, state.pause - now)), unpack(permits)}

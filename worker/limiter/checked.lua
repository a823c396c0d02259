-- Reads what Redis holds. Whoever can write to Redis can put anything there, and a NaN or an infinity would go through
-- the arithmetic and come out as a permit. What is outside its range ends the script with an error that has this text;
-- the caller counts that as no answer and deletes the script's keys, as FLUSHALL would.

local spoilt = 'spoilt limiter state'

local function checked(value, otherwise, least, most)
  if not value then return otherwise end
  local number = tonumber(value)
  if not number or not (number >= least and number <= most) then error(spoilt) end
  return number
end

local function whole(text, digits)
  if #text > digits or not string.match(text, '^%d+$') then error(spoilt) end
  return tonumber(text)
end

local LAST_INSTANT = 2 ^ 53 -- in microseconds; the largest number up to which whole numbers are exact


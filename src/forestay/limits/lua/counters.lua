-- Counts one slot's calls: every operation of one batch, atomically, by the server's clock. The arithmetic of rates is
-- `limits/gcra.py`; the operations and what they promise are those of `limits/counters.py`. Whatever a batch touches is
-- read once and written once, so that the hundredth call of a batch costs a few table look-ups.
--
-- KEYS[1]  the slot's prefix, fl:{t:acme} or fl:{fleet}: its hash tag puts every key below on one node
-- ARGV[1]  JSON {"p": [plan...], "o": [operation...], "n": month, "w": seconds until the month ends}
--          plan: [[[kind, subject, a, b]...], [[subject, has a budget, counts flights]...]]; kinds: r and g rates
--          (a interval, b capacity, in microseconds), i calls in flight (a), b and m budgets of device-seconds, money (a)
-- returns  JSON [verdicts, levels]: for each take (t) and view (v) in turn 1 (granted), 2 (the month's spending is not
--          known here yet) or [refusing check, seconds to wait]; for each plan what its checks leave after the batch:
--          [left, seconds until there is more, left, ...], 0 where nobody asked
--
-- Keys below the prefix: r: and g: theoretical arrival times; h: what each holder holds (device-seconds, money, calls in
-- flight); s: the sums; x: when holders lapse that nobody has confirmed; u: what the month has cost, as the database has
-- it; d: holders that ended before they were seen. Nothing here is the only copy of anything that must last.
local EPOCH = 1793491200 -- 2026-11-01: microseconds since then, in sixteenths, are exact in a double until 2044
local SECOND = 1000000
local SWEEP = 100 -- lapsed holders taken away in one go
local KEPT = 40 * 86400
local FORGET = 300
local NEARLY = 1e-9
local base = KEYS[1]
local input = cjson.decode(ARGV[1])
local month, month_left = input.n, input.w
local clock = redis.call('TIME')
local now = (tonumber(clock[1]) - EPOCH) * SECOND + tonumber(clock[2])

-- Rates ---------------------------------------------------------------------------------------------------------------
local tats, moved = {}, {}

local function tat_of(key)
  local tat = tats[key]
  if not tat then
    tat = tonumber(redis.call('GET', base .. key) or now)
    tats[key] = tat
  end
  return tat
end

local function move(key, tat)
  tats[key] = tat
  moved[key] = true
end

local function write_rates()
  for key in pairs(moved) do
    local ahead = tats[key] - now
    if ahead > 0 then
      redis.call('SET', base .. key, string.format('%.4f', tats[key]), 'PX', math.ceil(ahead / 1000) + 1)
    else
      redis.call('DEL', base .. key)
    end
  end
end

-- What is held --------------------------------------------------------------------------------------------------------
local books = {}

local function pot_of(book, holder)
  local pot = book.pots[holder]
  if pot == nil then
    local held = redis.call('HGET', book.holds, holder)
    pot = false -- nothing is held
    if held then
      local gpu, money, flights = string.match(held, '^(%S+) (%S+) (%S+)$')
      pot = {gpu = tonumber(gpu), money = tonumber(money), flights = tonumber(flights)}
    end
    book.pots[holder] = pot
  end
  return pot
end

local function add(book, holder, gpu, money, flights)
  local pot = pot_of(book, holder) or {gpu = 0, money = 0, flights = 0}
  local after = {
    gpu = math.max(0, pot.gpu + gpu), money = math.max(0, pot.money + money), flights = math.max(0, pot.flights + flights)
  }
  book.gpu, book.money = book.gpu + after.gpu - pot.gpu, book.money + after.money - pot.money
  book.flights = book.flights + after.flights - pot.flights
  book.pots[holder] = after
  book.changed[holder] = true
  return after.gpu - pot.gpu
end

local function drop(book, holder)
  local pot = pot_of(book, holder)
  if pot then
    add(book, holder, -pot.gpu, -pot.money, -pot.flights)
  end
  return pot
end

local function book_of(subject)
  local book = books[subject]
  if not book then
    book = {
      holds = base .. ':h:' .. subject, sums = base .. ':s:' .. subject, lapse = base .. ':x:' .. subject,
      pots = {}, changed = {}, leases = {}
    }
    local sums = redis.call('HMGET', book.sums, 'g', 'm', 'f')
    book.gpu, book.money, book.flights = tonumber(sums[1] or 0), tonumber(sums[2] or 0), tonumber(sums[3] or 0)
    for _, holder in ipairs(redis.call('ZRANGEBYSCORE', book.lapse, '-inf', now, 'LIMIT', 0, SWEEP)) do
      drop(book, holder)
      book.leases[holder] = 0
    end
    books[subject] = book
  end
  return book
end

local function write_book(book)
  for holder in pairs(book.changed) do
    local pot = book.pots[holder]
    if pot.gpu < NEARLY and pot.money < NEARLY and pot.flights == 0 then
      redis.call('HDEL', book.holds, holder)
      book.leases[holder] = 0
    else
      redis.call('HSET', book.holds, holder, string.format('%.17g %.17g %d', pot.gpu, pot.money, pot.flights))
    end
  end
  for holder, lease in pairs(book.leases) do
    if lease > 0 then
      redis.call('ZADD', book.lapse, now + lease * SECOND, holder)
    else
      redis.call('ZREM', book.lapse, holder)
    end
  end
  if next(book.changed) then
    if redis.call('EXISTS', book.holds) == 0 then
      redis.call('DEL', book.sums) -- also ends what rounding has left over
      return
    end
    local gpu, money = string.format('%.17g', book.gpu), string.format('%.17g', book.money)
    redis.call('HSET', book.sums, 'g', gpu, 'm', money, 'f', book.flights)
    for _, key in ipairs({book.holds, book.sums, book.lapse}) do
      redis.call('EXPIRE', key, KEPT)
    end
  end
end

-- What the month has cost ---------------------------------------------------------------------------------------------
local spendings = {}

local function spent_key(subject, which)
  return base .. ':u:' .. subject .. ':' .. which
end

local function spent_of(subject)
  local spent = spendings[subject]
  if not spent then
    local found = redis.call('HMGET', spent_key(subject, month), 'g', 'm')
    if not found[1] then
      return nil
    end
    spent = {gpu = tonumber(found[1]), money = tonumber(found[2])}
    spendings[subject] = spent
  end
  return spent
end

local function write_spent(subject, which, gpu, money)
  local key = spent_key(subject, which)
  redis.call('HSET', key, 'g', string.format('%.17g', gpu), 'm', string.format('%.17g', money))
  redis.call('EXPIRE', key, KEPT)
  spendings[subject] = nil
end

local function raise_spent(subject, which, gpu, money)
  local found = redis.call('HMGET', spent_key(subject, which), 'g', 'm')
  if found[1] then
    write_spent(subject, which, math.max(gpu, tonumber(found[1])), math.max(money, tonumber(found[2])))
  end
end

local function seed(subject, which, gpu, money, live)
  if redis.call('EXISTS', spent_key(subject, which)) == 1 then
    return
  end
  write_spent(subject, which, gpu, money)
  local book = book_of(subject)
  for _, one in ipairs(live) do
    if redis.call('EXISTS', base .. ':d:' .. one[1]) == 0 and not pot_of(book, one[1]) then
      add(book, one[1], one[2], one[3], 0)
    end
  end
end

local function knows_spending(plan)
  for _, kept in ipairs(plan[2]) do
    if kept[2] == 1 and not spent_of(kept[1]) then
      return false
    end
  end
  return true
end

local function used_of(check)
  local spent, book = spent_of(check[2]), book_of(check[2])
  if check[1] == 'b' then
    return spent.gpu + book.gpu
  end
  return spent.money + book.money
end

-- Takes and views -----------------------------------------------------------------------------------------------------
local function rate_key(check)
  return ':' .. check[1] .. ':' .. check[2]
end

local function flights_of(subject, elsewhere)
  return book_of(subject).flights + (elsewhere and elsewhere[subject] or 0)
end

local function wait_of(check, gpu, money, elsewhere)
  local kind, a, b = check[1], check[3], check[4]
  if kind == 'r' or kind == 'g' then
    local ahead = math.max(tat_of(rate_key(check)) - now, 0)
    local need = (kind == 'r' and 1 or gpu) * a
    return need > b and ahead or ahead + need - b
  elseif kind == 'i' then
    return flights_of(check[2], elsewhere) < a and 0 or SECOND
  end
  local over = used_of(check) + (kind == 'b' and gpu or money) - a
  return over > a * 1e-12 and month_left * SECOND or 0
end

local function say_levels(plan, elsewhere)
  local said = {}
  for _, check in ipairs(plan[1]) do
    local kind, a, b = check[1], check[3], check[4]
    local left, soon = 0, 0
    if kind == 'r' or kind == 'g' then
      local ahead = tat_of(rate_key(check)) - now
      left = math.max(0, (b - math.max(ahead, 0)) / a)
      if ahead > 0 then
        soon = ((math.floor(left) + 1 - left) * a + math.max(0, ahead - b)) / SECOND
      end
    elseif kind == 'i' then
      left = math.max(0, a - flights_of(check[2], elsewhere))
    else
      left, soon = math.max(0, a - used_of(check)), month_left
    end
    said[#said + 1] = left
    said[#said + 1] = soon
  end
  return said
end

local function take(plan, holder, gpu, money, lease, elsewhere)
  if not knows_spending(plan) then
    return 2
  end
  local refusing, longest = 0, 0
  for n, check in ipairs(plan[1]) do
    local wait = wait_of(check, gpu, money, elsewhere)
    if wait > longest then
      refusing, longest = n, wait
    end
  end
  if refusing > 0 then
    return {refusing - 1, longest / SECOND}
  end
  for _, check in ipairs(plan[1]) do
    local kind = check[1]
    if kind == 'r' or kind == 'g' then
      move(rate_key(check), math.max(tat_of(rate_key(check)), now) + (kind == 'r' and 1 or gpu) * check[3])
    end
  end
  for _, kept in ipairs(plan[2]) do
    local book = book_of(kept[1])
    add(book, holder, gpu, money, kept[3])
    book.leases[holder] = lease
  end
  return 1
end

-- Endings -------------------------------------------------------------------------------------------------------------
local function correct_minute(plan, subject, more)
  for _, check in ipairs(plan[1]) do
    if check[1] == 'g' and check[2] == subject and more ~= 0 then
      local tat = tat_of(rate_key(check))
      move(rate_key(check), (more > 0 and math.max(tat, now) or tat) + more * check[3])
    end
  end
end

local function give_back(plan, holder, gpu, money, whole)
  for _, kept in ipairs(plan[2]) do
    correct_minute(plan, kept[1], add(book_of(kept[1]), holder, -gpu, -money, -kept[3]))
  end
  if whole == 1 then
    for _, check in ipairs(plan[1]) do
      if check[1] == 'r' then
        move(rate_key(check), tat_of(rate_key(check)) - check[3])
      end
    end
  end
end

local function settle(plan, holder, gpu, money, used, owed, lease, calls)
  for _, kept in ipairs(plan[2]) do
    local book, budget = book_of(kept[1]), kept[2] -- a budget holds what was used until the database does
    if pot_of(book, holder) then
      add(book, holder, used * budget - gpu, owed * budget - money, -kept[3] * calls)
    elseif budget == 1 then -- it has lapsed, or was lost
      add(book, holder, used, owed, 0)
      book.leases[holder] = lease
    end
    correct_minute(plan, kept[1], used - gpu)
  end
end

local function release(plan, holder, gpu, money)
  for _, kept in ipairs(plan[2]) do
    if kept[2] == 1 then
      add(book_of(kept[1]), holder, -gpu, -money, 0)
    end
  end
end

local function confirm(plan, holder)
  for _, kept in ipairs(plan[2]) do
    book_of(kept[1]).leases[holder] = 0
  end
end

local function keep(subject, holder, gpu, money, flights, lease)
  local book = book_of(subject)
  if not pot_of(book, holder) then
    add(book, holder, gpu, money, flights)
  end
  book.leases[holder] = lease
end

local function finish(plan, holder, used)
  for _, kept in ipairs(plan[2]) do
    local pot = drop(book_of(kept[1]), holder)
    if pot then
      correct_minute(plan, kept[1], used - pot.gpu)
    elseif kept[2] == 1 then
      redis.call('SET', base .. ':d:' .. holder, 1, 'EX', FORGET)
    end
  end
end

-- The batch -----------------------------------------------------------------------------------------------------------
local verdicts, asked = {}, {}
for _, op in ipairs(input.o) do
  local what, plan = op[1], input.p[op[2]]
  if what == 't' then
    verdicts[#verdicts + 1] = take(plan, op[3], op[4], op[5], op[6], op[7])
    asked[op[2]] = op[7] or {}
  elseif what == 's' then
    settle(plan, op[3], op[4], op[5], op[6], op[7], op[8], op[9])
  elseif what == 'b' then
    give_back(plan, op[3], op[4], op[5], op[6])
  elseif what == 'c' then
    confirm(plan, op[3])
  elseif what == 'e' then
    finish(plan, op[3], op[4])
  elseif what == 'l' then
    release(plan, op[3], op[4], op[5])
  elseif what == 'k' then
    keep(op[3], op[4], op[5], op[6], op[7], op[8])
  elseif what == 'u' then
    raise_spent(op[3], op[4], op[5], op[6])
  elseif what == 'd' then
    seed(op[3], op[4], op[5], op[6], op[7])
  elseif what == 'v' then
    verdicts[#verdicts + 1] = knows_spending(plan) and 1 or 2
    asked[op[2]] = {}
  end
end
local levels = {}
for n, plan in ipairs(input.p) do
  levels[n] = asked[n] and knows_spending(plan) and say_levels(plan, asked[n]) or 0
end
write_rates()
for _, book in pairs(books) do
  write_book(book)
end
if #verdicts == 0 then
  return '[[],[]]'
end
return cjson.encode({verdicts, levels})

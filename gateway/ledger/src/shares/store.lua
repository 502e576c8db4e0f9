-- Rate limits and slots that gateways share in Valkey or Redis: the accounts of policy's share/account.rs and share/slots.rs,
-- on this server's clock. Numbers are doubles: amounts stay below 2^53, and the one product beyond is divided exactly.
-- KEYS: the members, by gateway `session refreshed_us is_sole has_told`; the accounts, each a line; the epoch, `server begun_us`.
-- ARGV: the operation, the gateway, its session, and what the operation needs. The answer is a list of numbers; -1 alone where
-- the session has ended.
local MEMBERS, ACCOUNTS, EPOCH = KEYS[1], KEYS[2], KEYS[3]
local operation, gateway, session = ARGV[1], ARGV[2], ARGV[3]
local LEASE_TTL, RECALL_FOR, FORGET_AFTER = 3000000, 2000000, 60000000
local SPARE_PART, LONGEST_DEBT = 32, 2

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])

local next_argument = 3
local function word()
  next_argument = next_argument + 1
  return ARGV[next_argument]
end
local function number() return tonumber(word()) end

local function text(value) return string.format('%.0f', value) end
local function less(value, by) return math.max(value - by, 0) end
local function passed(from) return less(now, from) * 1000 end

local function words_of(line)
  local words = {}
  for each in string.gmatch(line or '', '%S+') do words[#words + 1] = each end
  return words
end

-- floor(a * b / c) for b <= c < 2^52, bit by bit.
local function part_of(a, b, c)
  if b == 0 or b == c then return b == 0 and 0 or a end
  local quotient, rest, bit = 0, 0, 1
  while bit * 2 <= a do bit = bit * 2 end
  while bit >= 1 do
    quotient, rest = quotient * 2, rest * 2
    if rest >= c then quotient, rest = quotient + 1, rest - c end
    if a >= bit then
      a, rest = a - bit, rest + b
      if rest >= c then quotient, rest = quotient + 1, rest - c end
    end
    bit = bit / 2
  end
  return quotient
end

local function read_members()
  local members, flat = {}, redis.call('HGETALL', MEMBERS)
  for at = 1, #flat, 2 do
    local words = words_of(flat[at + 1])
    members[flat[at]] = {
      session = words[1], refreshed = tonumber(words[2]), is_sole = words[3] == '1', has_told = words[4] == '1',
    }
  end
  return members
end

local function write_member(member)
  local flags = (member.is_sole and '1' or '0') .. ' ' .. (member.has_told and '1' or '0')
  redis.call('HSET', MEMBERS, gateway, member.session .. ' ' .. text(member.refreshed) .. ' ' .. flags)
end

-- Begins a session. A server that has started anew, or was emptied, begins an epoch: what was granted before is not known.
-- Answers 1 where the store knows what this gateway holds.
if operation == 'begin' then
  local server, has_started = word(), word() == '1'
  if words_of(redis.call('GET', EPOCH))[1] ~= server then
    redis.call('DEL', MEMBERS, ACCOUNTS)
    redis.call('SET', EPOCH, server .. ' ' .. text(now))
  end
  local known = read_members()[gateway]
  local member = not has_started and known or { refreshed = 0, is_sole = false, has_told = false }
  member.session = session
  write_member(member)
  return { known and known.has_told and 1 or 0 }
end

if operation == 'leave' then
  redis.call('HDEL', MEMBERS, gateway)
  return {}
end

local members = read_members()
local own = members[gateway]
local epoch = words_of(redis.call('GET', EPOCH))
if not own or own.session ~= session or not epoch[2] then return { -1 } end

local live, is_one_sole, others, rank = { [gateway] = true }, false, 0, 0
for id, member in pairs(members) do
  if id ~= gateway and member.refreshed > now - LEASE_TTL then
    live[id] = true
    is_one_sole = is_one_sole or member.is_sole
    others = others + 1
    if id < gateway then rank = rank + 1 end
  elseif id ~= gateway and member.refreshed < now - FORGET_AFTER then
    redis.call('HDEL', MEMBERS, id)
  end
end

-- Renews this gateway. What it uses the whole of, it uses no longer unless it stays alone.
local function renew(stays_alone)
  own.refreshed, own.is_sole = now, own.is_sole and stays_alone
  write_member(own)
end

-- At the beginning of an epoch nothing is granted, until the gateways that the database takes for live have told what they
-- hold, or do not hold it any longer.
local function is_recovering(listed)
  if now >= tonumber(epoch[2]) + LEASE_TTL then return false end
  for _, id in ipairs(listed) do
    if not (members[id] and members[id].has_told) then return true end
  end
  return false
end

local function rate_account(line)
  local words = words_of(line)
  local account = {
    used = tonumber(words[1] or 0), at = tonumber(words[2] or 0), recalled_until = tonumber(words[3] or 0), holders = {},
  }
  for at = 4, #words, 4 do
    account.holders[words[at]] = {
      held = tonumber(words[at + 1]), demand = tonumber(words[at + 2]), lowest = tonumber(words[at + 3]),
    }
  end
  return account
end

local function rate_line(account)
  local words = { text(account.used), text(account.at), text(account.recalled_until) }
  for id, holding in pairs(account.holders) do
    words[#words + 1] = id
    words[#words + 1] = text(holding.held)
    words[#words + 1] = text(holding.demand)
    words[#words + 1] = text(holding.lowest)
  end
  return table.concat(words, ' ')
end

local function note_lowest(account)
  for _, holding in pairs(account.holders) do holding.lowest = math.min(holding.lowest, account.used) end
end

local function rate_target(account, report, free, demands)
  local fair = part_of(less(report.burst, account.used), report.demand, math.max(demands, 1))
  local spare = math.min(math.floor(free / ((others + 1) * 2)), math.floor(report.burst / SPARE_PART))
  if spare < report.size or account.at < account.recalled_until then spare = 0 end
  local target = math.max(spare, math.min(report.demand, fair))
  if report.least == 0 or report.least > free then return target end
  return math.max(target, report.least, math.min(report.most, free, fair))
end

local function read_rate_report()
  return {
    id = word(), burst = number(), level = number(), announces = word() == '1', used = number(), refunded = number(),
    held = number(), demand = number(), size = number(), least = number(), most = number(),
  }
end

-- Notes a level, and as held what was used of it and is not reported: both are reported again.
local function recover_rate()
  local report = read_rate_report()
  local account = rate_account(redis.call('HGET', ACCOUNTS, report.id))
  account.used, account.at = math.max(less(account.used, passed(account.at)), report.level), now
  account.holders[gateway] = { held = report.held + report.used, demand = report.demand, lowest = account.used }
  redis.call('HSET', ACCOUNTS, report.id, rate_line(account))
end

local function refresh_rate(answer)
  local report = read_rate_report()
  local id = report.id
  local account = rate_account(redis.call('HGET', ACCOUNTS, id))
  account.used, account.at = less(account.used, passed(account.at)), math.max(account.at, now)
  note_lowest(account)
  for holder, holding in pairs(account.holders) do
    if not live[holder] then
      account.used = account.used + holding.held
      account.holders[holder] = nil
    end
  end
  local before = account.holders[gateway]
  account.holders[gateway] = nil
  if not before or report.announces then account.used = math.max(account.used, report.level) end
  local lowest = before and before.lowest or account.used
  account.used = less(account.used, report.refunded)
  lowest = math.min(lowest, account.used)
  note_lowest(account)
  account.used = math.min(account.used + report.used, math.max(report.burst * LONGEST_DEBT, account.used))
  local held, demands = 0, report.demand
  for _, holding in pairs(account.holders) do held, demands = held + holding.held, demands + holding.demand end
  local free = less(report.burst, account.used + held)
  if report.least > free and report.least <= less(report.burst, account.used) then
    account.recalled_until = account.at + RECALL_FOR
  end
  local target = rate_target(account, report, free, demands)
  local granted = less(math.min(target, free), report.held)
  local wait = report.least > report.held + granted and less(report.least, free) or 0
  if report.held + granted > 0 or report.demand > 0 or report.used > 0 then
    account.holders[gateway] = { held = report.held + granted, demand = report.demand, lowest = account.used }
  end
  redis.call('HSET', ACCOUNTS, id, rate_line(account))
  for _, amount in ipairs({ granted, target, account.used, lowest, wait }) do answer[#answer + 1] = amount end
end

-- Divides slots max-min fairly by demand, and what nobody asks for equally.
local function max_min(slots, holders)
  local order = {}
  for at = 1, #holders do order[at] = at end
  table.sort(order, function(one, other)
    local a, b = holders[one].demand, holders[other].demand
    return a < b or (a == b and one < other)
  end)
  local shares, left = {}, slots
  for served, at in ipairs(order) do
    shares[at] = math.min(holders[at].demand, math.floor(left / (#holders - served + 1)))
    left = left - shares[at]
  end
  for at = 1, #holders do
    shares[at] = shares[at] + math.floor(left / #holders) + (at <= left % #holders and 1 or 0)
  end
  return shares
end

-- Without an answer, what is held is noted and nothing granted.
local function refresh_slots(answer)
  local id, limit, held, demand = word(), number(), number(), number()
  local words, holders, free = words_of(redis.call('HGET', ACCOUNTS, id)), {}, limit
  for at = 1, #words, 3 do
    if words[at] ~= gateway and live[words[at]] then
      local holding = { id = words[at], held = tonumber(words[at + 1]), demand = tonumber(words[at + 2]) }
      holders[#holders + 1] = holding
      free = less(free, holding.held)
    end
  end
  local mine = { id = gateway, held = held, demand = demand }
  holders[#holders + 1] = mine
  table.sort(holders, function(one, other) return one.id < other.id end)
  if answer then
    local target, shares = held, max_min(limit, holders)
    for at, holding in ipairs(holders) do
      if holding == mine then target = shares[at] end
    end
    local granted = less(math.min(target, free), held)
    mine.held = held + granted
    answer[#answer + 1], answer[#answer + 2] = granted, target
  end
  local line = {}
  for at, holding in ipairs(holders) do
    line[at] = holding.id .. ' ' .. text(holding.held) .. ' ' .. text(holding.demand)
  end
  redis.call('HSET', ACCOUNTS, id, table.concat(line, ' '))
end

-- Tells that this gateway is live, while it leases nothing.
if operation == 'greet' then
  renew(true)
  return { others, own.is_sole and 1 or 0 }
end

local listed = words_of(word())

-- Reports and grants. The first numbers of the answer: members, rank, whether anything is granted, the time.
if operation == 'refresh' then
  local is_whole = word() == '1'
  own.has_told = own.has_told or is_whole
  renew(not is_whole)
  if is_one_sole then return { others + 1, rank, 0, now } end
  local recovering, answer = is_recovering(listed), { others + 1, rank, 1, now }
  local rates, slots = number(), number()
  if recovering then
    for _ = 1, rates do recover_rate() end
    for _ = 1, slots do refresh_slots() end
    return { others + 1, rank, 0, now }
  end
  for _ = 1, rates do refresh_rate(answer) end
  for _ = 1, slots do refresh_slots(answer) end
  return answer
end

-- Takes all accounts over, if no other gateway is live. Answers with the levels of the rate limits, each after its id.
if operation == 'take_over' then
  for _, id in ipairs(listed) do
    if id ~= gateway then return {} end
  end
  if others > 0 or is_recovering(listed) then return {} end
  own.is_sole = true
  renew(true)
  local answer, flat = { 'levels' }, redis.call('HGETALL', ACCOUNTS)
  for at = 1, #flat, 2 do
    if string.sub(flat[at], 1, 6) ~= 'slots/' then
      local account = rate_account(flat[at + 1])
      local level = less(account.used, passed(account.at))
      for holder, holding in pairs(account.holders) do
        if holder ~= gateway then level = level + holding.held end
      end
      answer[#answer + 1], answer[#answer + 2] = flat[at], text(level)
    end
  end
  return answer
end

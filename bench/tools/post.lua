-- wrk script: posts one request body over and over, and counts answers that are not 200.
-- BODY: file that holds the body; CONTENT_TYPE: its type; EXPECT: text that an answer must hold.
local file = assert(io.open(os.getenv("BODY"), "rb"))
wrk.method = "POST"
wrk.body = file:read("*a")
file:close()
wrk.headers["Content-Type"] = os.getenv("CONTENT_TYPE")

local threads = {}
function setup(thread)
  table.insert(threads, thread)
end

function init()
  wrong = 0
  expect = os.getenv("EXPECT")
end

function response(status, headers, body)
  if status ~= 200 or not body:find(expect, 1, true) then
    wrong = wrong + 1
  end
end

function done(summary, latency, requests)
  local wrong_total = 0
  for _, thread in ipairs(threads) do
    wrong_total = wrong_total + thread:get("wrong")
  end
  local e = summary.errors
  io.write(string.format(
    '{"requests": %d, "seconds": %.6f, "p50_ms": %.4f, "p99_ms": %.4f, "max_ms": %.4f, "errors": %d}\n',
    summary.requests, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3,
    wrong_total + e.connect + e.read + e.write + e.timeout))
end

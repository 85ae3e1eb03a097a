// Preloaded into the drivers: what an SDK sends to https://api.weixin.qq.com arrives at the fake WeChat.
const http = require('http');
const https = require('https');

const fake = new URL(process.env.FAKE_WECHAT);
const real = https.request;

https.request = function request(...args) {
  const [first] = args;
  const options = typeof first === 'string' || first instanceof URL ? new URL(first) : first;
  const host = options.hostname || options.host;
  if (host !== 'api.weixin.qq.com') return real.apply(this, args);
  const callback = args.find((argument) => typeof argument === 'function');
  const { method, headers, path } = { ...options, ...(args[1] instanceof Function ? {} : args[1]) };
  return http.request(
    {
      hostname: fake.hostname,
      port: fake.port,
      method,
      headers: { ...headers, host: fake.host },
      path: path || options.pathname + options.search,
    },
    callback,
  );
};

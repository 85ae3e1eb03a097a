// Stands in for WeChat's script: asks the test's server what WeChat would say. Callbacks in the order of 1.6.0: error
// before ready; ready always comes, and at once after the first answer. iOS looks at the address of entry.
(function () {
  var answered = false, fail, completes = [], entry = location.href.split('#')[0];
  window.configs = [];
  window.answers = [];
  window.told = [];
  document.addEventListener('wechat-jssdk', function (event) { told.push(event.detail.errMsg); });
  window.wx = {
    config: function (config) {
      var url = /iPhone/.test(navigator.userAgent) ? entry : location.href.split('#')[0];
      configs.push(config);
      fetch('/weixin/check', { method: 'POST', body: JSON.stringify({ config: config, url: url }) })
        .then(function (answer) { return answer.json(); })
        .then(function (result) {
          answered = true;
          if (result.errMsg !== 'config:ok' && fail) fail(result);
          answers.push(result.errMsg);
          completes.splice(0).forEach(function (complete) { complete(result); });
        });
    },
    ready: function (callback) { if (answered) callback(); else completes.push(callback); },
    error: function (callback) { fail = callback; }
  };
})();

// The microphone.

const MICROPHONE = {
  NotAllowedError: "The browser does not let this page use the microphone. Allow it beside the address, and try again.",
  NotFoundError: "There is no microphone.",
  NotReadableError: "The microphone is in use by something else.",
};

let recorder = null;
// A browser may ask its user first, who may press the button again meanwhile.
let isAsking = false;

/** Begins to record, or ends it and transcribes. */
async function record() {
  if (recorder) return recorder.stop();
  if (isAsking) return;
  isAsking = true;
  try {
    // It is only there over https, and on the machine itself.
    if (!navigator.mediaDevices) throw new Error("A browser lets a page use the microphone over https only.");
    begin(await navigator.mediaDevices.getUserMedia({ audio: true }));
  } catch (error) {
    hearing.say(MICROPHONE[error.name] ?? error.message, true);
  } finally {
    isAsking = false;
  }
}

const release = (stream) => stream.getTracks().forEach((track) => track.stop());

function begin(stream) {
  try {
    const [parts, current] = [[], new MediaRecorder(stream)];
    on(current, "dataavailable", ({ data }) => parts.push(data));
    current.start();
    const end = showLevel(stream);
    on(current, "stop", () => {
      release(stream);
      end();
      recorder = null;
      showRecording(false);
      $("audio-file").value = "";
      takeRecording(new Blob(parts, { type: current.mimeType }));
      hearing.run(transcribe);
    });
    recorder = current;
    showRecording(true);
  } catch (error) {
    release(stream);
    throw error;
  }
}

function showRecording(isOn) {
  $("record").setAttribute("aria-pressed", isOn);
  $("record").textContent = isOn ? "Stop and transcribe" : "Record";
  $("record-state").hidden = !isOn;
  if (isOn) hearing.say("");
}

/** Shows how loud it is and for how long; returns how to end that. */
function showLevel(stream) {
  const context = new AudioContext();
  const analyser = context.createAnalyser();
  context.createMediaStreamSource(stream).connect(analyser);
  const [wave, start] = [new Float32Array(analyser.fftSize), performance.now()];
  const timer = setInterval(() => {
    analyser.getFloatTimeDomainData(wave);
    $("record-level").value = Math.min(1, 4 * Math.sqrt(dot(wave, wave) / wave.length));
    $("record-time").textContent = clock((performance.now() - start) / 1000);
  }, 100);
  return () => {
    clearInterval(timer);
    context.close();
  };
}

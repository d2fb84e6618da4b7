// Recording from the microphone.

const MICROPHONE_ERRORS = {
  NotAllowedError: "The browser does not allow this page to use the microphone. Allow it in the address bar and try again.",
  NotFoundError: "No microphone was found.",
  NotReadableError: "The microphone is in use by another application.",
};

// The MediaRecorder while it records.
let recorder = null;
// True while the browser asks for permission; the button may be pressed again meanwhile.
let isRequestingMicrophone = false;

/** Starts a recording, or stops and transcribes it. */
async function toggleRecording() {
  if (recorder) return recorder.stop();
  if (isRequestingMicrophone) return;
  isRequestingMicrophone = true;
  try {
    // Browsers define `mediaDevices` only over HTTPS and on localhost.
    if (!navigator.mediaDevices) throw new Error("Browsers allow the microphone only over https and on localhost.");
    startRecording(await navigator.mediaDevices.getUserMedia({ audio: true }));
  } catch (error) {
    transcribeAction.showMessage(MICROPHONE_ERRORS[error.name] ?? error.message, true);
  } finally {
    isRequestingMicrophone = false;
  }
}

const stopTracks = (stream) => stream.getTracks().forEach((track) => track.stop());

function startRecording(stream) {
  try {
    const [chunks, current] = [[], new MediaRecorder(stream)];
    on(current, "dataavailable", ({ data }) => chunks.push(data));
    current.start();
    const stopLevel = showLevel(stream);
    on(current, "stop", () => {
      stopTracks(stream);
      stopLevel();
      recorder = null;
      showRecording(false);
      $("audio-file").value = "";
      setRecording(new Blob(chunks, { type: current.mimeType }));
      transcribeAction.run(transcribe);
    });
    recorder = current;
    showRecording(true);
  } catch (error) {
    stopTracks(stream);
    throw error;
  }
}

function showRecording(isRecording) {
  $("record").setAttribute("aria-pressed", isRecording);
  $("record").textContent = isRecording ? "Stop and transcribe" : "Record";
  $("record-state").hidden = !isRecording;
  if (isRecording) transcribeAction.showMessage("");
}

/** Shows the input level and the elapsed time until the returned function is called. */
function showLevel(stream) {
  const context = new AudioContext();
  const analyser = context.createAnalyser();
  context.createMediaStreamSource(stream).connect(analyser);
  const [samples, start] = [new Float32Array(analyser.fftSize), performance.now()];
  const timer = setInterval(() => {
    analyser.getFloatTimeDomainData(samples);
    // Amplified, because the RMS of speech is far below that of a full-scale signal.
    $("record-level").value = Math.min(1, 4 * Math.sqrt(dot(samples, samples) / samples.length));
    $("record-time").textContent = formatClock((performance.now() - start) / 1000);
  }, 100);
  return () => {
    clearInterval(timer);
    context.close();
  };
}
